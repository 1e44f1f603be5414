"""What a training run made of photos: `python docs/make_training_picture.py PHOTOS TITLE=WEIGHTS... [--output FILE]`.

A photo per column, brought to 128 px and magnified by 3. From the top: gray, automatic with each of the
weights (files, or checkpoints of a run), with a distorted copy as reference by the last of them, the truth.
The README's photos are two of budgie-backgrounds (CC0 1.0) and four of metadata-extractor-images ("free to use these
media files however you wish"), none of which was trained on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from scsnet import SCSNet, checkpoint
from training.data.photos import find_photos, read_squares
from training.engine import checkpoints
from training.engine.model_card import load_averaged_network
from training.evaluation.protocol import (
    BICUBIC,
    Colorizer,
    Protocol,
    gray,
    make_reference,
    to_tensor,
    to_uint8,
)

PROTOCOL = Protocol(size=384, magnification=3.0, bf16=True)
CELL, GAP, LABEL = 144, 3, 150  # pixels of the sheet


def network(source: str) -> SCSNet:
    """Of weights, or of a checkpoint of a run."""
    if source.endswith(".pt"):
        return load_averaged_network(checkpoints.load(Path(source)))
    return checkpoint.load(source, dtype=torch.float32)


def rows(photos: list[str], runs: dict[str, str]) -> dict[str, list[np.ndarray]]:
    """What a row is -> its pictures, each uint8 (H, W, 3)."""
    truths = [square for _, square in read_squares(find_photos(photos), PROTOCOL.size, [])]
    lows = [to_tensor(truth.resize((PROTOCOL.low, PROTOCOL.low), BICUBIC)) for truth in truths]
    made = {"gray": [to_uint8(gray(low)) for low in lows]}
    for title, source in runs.items():
        colorize = Colorizer(network(source), PROTOCOL)
        made[title] = [colorize(low, None, "auto") for low in lows]
    own = [make_reference(low, PROTOCOL.seed + n) for n, low in enumerate(lows)]
    made["its own distorted\ncopy as reference"] = [
        colorize(low, reference, "self") for low, reference in zip(lows, own, strict=True)
    ]
    return made | {"truth": [np.asarray(truth) for truth in truths]}


def sheet(made: dict[str, list[np.ndarray]]) -> Image.Image:
    """Rows below each other, their titles at the left."""
    count = max(map(len, made.values()))
    step = CELL + GAP
    image = Image.new("RGB", (LABEL + count * step, len(made) * step - GAP), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=14)
    for y, (title, pictures) in enumerate(made.items()):
        middle = y * step + CELL / 2
        draw.multiline_text((4, middle), title, fill="black", font=font, anchor="lm")
        for x, picture in enumerate(pictures):
            cell = Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.LANCZOS)
            image.paste(cell, (LABEL + x * step, y * step))
    return image


def main() -> None:
    """Options -> a JPEG."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", help="folder, or list (.txt)")
    parser.add_argument("runs", nargs="+", metavar="TITLE=WEIGHTS")
    parser.add_argument("--output", default=str(ROOT / "docs" / "training_run.jpg"))
    options = parser.parse_args()
    image = sheet(rows([options.photos], dict(run.split("=", 1) for run in options.runs)))
    image.save(options.output, quality=80)
    print(f"{options.output}: {image.width} x {image.height}")


if __name__ == "__main__":
    main()
