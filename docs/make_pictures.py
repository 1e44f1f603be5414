"""The pictures of the README: `python docs/make_pictures.py NAME=PHOTO...`.

PHOTO are colour photos whose terms allow it: each is brought to 128 x 128 gray, coloured with its own
distorted copy as reference and magnified by 4, into `own_NAME.jpg`. The other one is made from `samples/`.
The README's are `perched_osprey` and `singaporean_cityscape` of budgie-backgrounds (CC0 1.0).
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

import torch
from PIL import Image, ImageDraw, ImageFont

from scsnet import SCSNet, encode_picture, render
from scsnet.checkpoint import load
from scsnet.device import choose_dtype
from scsnet.pictures import read_picture
from training.evaluation.protocol import make_reference, to_tensor, to_uint8

HEIGHT = 288
GAP = 6


def row(panels: list[tuple[str, Image.Image]]) -> Image.Image:
    """Panels of one height side by side, each with a word below."""
    font = ImageFont.load_default(size=14)
    sized = [
        p.convert("RGB").resize(
            (round(p.width * HEIGHT / p.height), HEIGHT), Image.Resampling.LANCZOS
        )
        for _, p in panels
    ]
    width = sum(p.width for p in sized) + GAP * (len(sized) - 1)
    sheet = Image.new("RGB", (width, HEIGHT + 24), "white")
    draw, left = ImageDraw.Draw(sheet), 0
    for (name, _), panel in zip(panels, sized, strict=True):
        sheet.paste(panel, (left, 0))
        draw.text((left + 2, HEIGHT + 4), name, fill="black", font=font)
        left += panel.width + GAP
    return sheet


def save(sheet: Image.Image, name: str) -> None:
    """JPEG beside this file."""
    sheet.save(Path(__file__).parent / name, quality=88)
    print(f"docs/{name}: {sheet.width} x {sheet.height}")


def old_photo(net: SCSNet) -> None:
    """The sample, automatic and with its reference."""
    gray = Image.open(ROOT / "samples/Colorado1941.png")
    reference = Image.open(ROOT / "samples/Alps.jpg")
    size = (gray.height, gray.width)
    panels: list[tuple[str, Image.Image]] = [("a photo of 1941", gray)]
    automatic = render(net, encode_picture(net, to_tensor(gray.convert("RGB"))), size)
    led = render(
        net,
        encode_picture(net, to_tensor(gray.convert("RGB")), [to_tensor(reference.convert("RGB"))]),
        size,
    )
    panels += [
        ("automatic", Image.fromarray(to_uint8(automatic))),
        ("a reference", reference),
        ("led by it", Image.fromarray(to_uint8(led))),
    ]
    save(row(panels), "old_photo.jpg")


def own_reference(net: SCSNet, name: str, path: str) -> None:
    """A photo at 128 x 128, gray, with its distorted copy, four times as large."""
    picture = Image.fromarray(read_picture(path).rgb)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    truth = picture.crop((left, top, left + side, top + side)).resize((512, 512))
    small = truth.resize((128, 128), Image.Resampling.BICUBIC)
    reference = make_reference(to_tensor(small), 3)
    features = encode_picture(net, to_tensor(small.convert("L").convert("RGB")), [reference])
    panels: list[tuple[str, Image.Image]] = [
        ("gray, 128 x 128", small.convert("L")),
        ("a distorted copy as reference", Image.fromarray(to_uint8(reference))),
        ("x 4", Image.fromarray(to_uint8(render(net, features, (512, 512))))),
        ("truth", truth),
    ]
    save(row(panels), f"own_{name}.jpg")


def main() -> None:
    """All of them."""
    net = load("bundled", dtype=choose_dtype(torch.device("cpu")))
    old_photo(net)
    for argument in sys.argv[1:]:
        own_reference(net, *argument.split("=", 1))


if __name__ == "__main__":
    main()
