"""The thumbnails of example_workflows/ and the pictures of web/docs/: `python tests/comfyui/make_pictures.py`.

Runs every shipped workflow with the bundled weights on a real ComfyUI (COMFYUI_PATH, COMFYUI_PYTHON; see README.md)
and puts its results together. Overwrites what is there.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path += [str(HERE), str(ROOT)]

from PIL import Image, ImageDraw  # noqa: E402
from server import Server  # noqa: E402
from workflows import FOLDER, WORKFLOWS, read, to_prompt  # noqa: E402

SAMPLES, HELP = ROOT / "web" / "samples", ROOT / "web" / "docs" / "pictures"
SIDE = 400  # of a thumbnail
GAP = 6


class Results:
    """What the previews of a workflow have shown, by the titles of their nodes."""

    def __init__(self, server: Server, name: str) -> None:
        workflow = read(name)
        outputs = server.run(to_prompt(workflow, server.get("/object_info")), timeout=600)
        self.shown: dict[str, list[Image.Image]] = {}
        for node in workflow["nodes"]:
            if node["type"] == "PreviewImage":
                files = outputs[str(node["id"])]["images"]
                self.shown[node["title"]] = [_opened(server.view(file)) for file in files]

    def __getitem__(self, title: str) -> Image.Image:
        return self.shown[title][0]


def _opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data)).convert("RGB")


def sample(name: str) -> Image.Image:
    """A picture that the workflows load."""
    return Image.open(SAMPLES / f"scsnet_{name}.jpg").convert("RGB")


def cover(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of the picture, resized to fill width x height."""
    factor = max(width / picture.width, height / picture.height)
    size = (round(picture.width * factor), round(picture.height * factor))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    resized = picture.resize(size, Image.Resampling.LANCZOS)
    return resized.crop((left, top, left + width, top + height))


def split(before: Image.Image, after: Image.Image) -> Image.Image:
    """A square, before on the left of a slanted line, after on the right."""
    upper, lower = round(0.62 * SIDE), round(0.38 * SIDE)
    mask = Image.new("L", (4 * SIDE, 4 * SIDE))
    corners = [(4 * upper, 0), (4 * SIDE, 0), (4 * SIDE, 4 * SIDE), (4 * lower, 4 * SIDE)]
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    mask = mask.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    result = Image.composite(cover(after, SIDE, SIDE), cover(before, SIDE, SIDE), mask)
    ImageDraw.Draw(result).line([(upper, 0), (lower, SIDE)], fill="white", width=3)
    return result


def row(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one height side by side."""
    width = sum(p.width for p in pictures) + GAP * (len(pictures) - 1)
    result, left = Image.new("RGB", (width, pictures[0].height), "white"), 0
    for picture in pictures:
        result.paste(picture, (left, 0))
        left += picture.width + GAP
    return result


def inset(
    into: Image.Image, picture: Image.Image, place: tuple[int, int], size: tuple[int, int]
) -> None:
    """A small picture with a white frame, whose corner is at `place`."""
    frame = Image.new("RGB", (size[0] + 6, size[1] + 6), "white")
    frame.paste(cover(picture, *size), (3, 3))
    into.paste(frame, place)


def save(picture: Image.Image, path: Path) -> None:
    """JPEG."""
    picture.save(path, quality=85, optimize=True, progressive=True)
    print(f"{path.relative_to(ROOT)}: {picture.width} x {picture.height}, {path.stat().st_size} B")


# --- one function per workflow: its thumbnail, and the help pages' picture where they show it -----------------------


def auto_x4(shown: Results) -> Image.Image:
    """Before and after."""
    gray = sample("fair_1900")
    sides = [cover(p, 380, 250) for p in (gray, shown["At its own size"])]
    save(row(sides), HELP / "auto.jpg")
    pixels = gray.resize((4 * gray.width, 4 * gray.height), Image.Resampling.NEAREST)
    return split(pixels, shown["Four times as large"])


def reference(shown: Results) -> Image.Image:
    """Before and after, and the reference."""
    gray, near = sample("mountains_1941"), sample("lake")
    parts = [cover(p, 250, 200) for p in (gray, near, shown["Colours of the reference"])]
    save(row(parts), HELP / "reference.jpg")
    thumbnail = split(gray, shown["Twice as large"])
    inset(thumbnail, near, (8, 268), (150, 118))
    return thumbnail


def several_references(shown: Results) -> Image.Image:
    """The result and the references."""
    thumbnail = cover(shown["Colours of all three"], SIDE, SIDE)
    for number, name in enumerate(("lake", "alps", "autumn")):
        inset(thumbnail, sample(name), (8 + 130 * number, 300), (118, 88))
    return thumbnail


def continuous_zoom(shown: Results) -> Image.Image:
    """The scales, as large as they are to each other or nearly so."""
    small, window = shown["0.6 times"], shown["A window of 8 times"]
    widths = [(small, 120), (shown["1.37 times"], 190), (shown["2.5 times"], 230), (window, 210)]
    save(row([cover(picture, width, 180) for picture, width in widths]), HELP / "zoom.jpg")
    thumbnail = cover(shown["2.5 times"], SIDE, SIDE)
    inset(thumbnail, window, (190, 196), (200, 194))
    inset(thumbnail, small, (8, 8), (100, 76))
    return thumbnail


def attention_study(shown: Results) -> Image.Image:
    """The figure's upper part: attention; valves follow below."""
    figure = shown["Figure"]
    upper = figure.crop((0, 0, figure.width, round(0.6 * figure.height)))
    height = round(upper.height * 760 / upper.width)
    save(upper.resize((760, height), Image.Resampling.LANCZOS), HELP / "attention.jpg")
    half = figure.width // 2
    return figure.crop((0, 30, half, 30 + half)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def video_batch(shown: Results) -> Image.Image:
    """Nine of the frames."""
    frames, thumbnail = shown.shown["All frames"], Image.new("RGB", (SIDE, SIDE), (20, 20, 20))
    for k in range(9):
        frame = cover(frames[k * len(frames) // 9], 126, 126)
        thumbnail.paste(frame, (6 + k % 3 * 131, 6 + k // 3 * 131))
    return thumbnail


def old_photo_restoration(shown: Results) -> Image.Image:
    """Before and after."""
    return split(sample("woman_1903"), shown["Colour added, light and dark as scanned"])


THUMBNAILS: dict[str, Any] = {
    "scsnet_auto_x4": auto_x4,
    "scsnet_reference": reference,
    "scsnet_several_references": several_references,
    "scsnet_continuous_zoom": continuous_zoom,
    "scsnet_attention_study": attention_study,
    "scsnet_video_batch": video_batch,
    "scsnet_old_photo_restoration": old_photo_restoration,
}


def main() -> None:
    """All of them."""
    assert sorted(THUMBNAILS) == WORKFLOWS, "a workflow has no thumbnail"
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        shutil.copytree(SAMPLES, base / "input")
        with Server(base, {"scsnet": ROOT}) as server:
            for name in WORKFLOWS:
                start = time.monotonic()
                save(THUMBNAILS[name](Results(server, name)), FOLDER / f"{name}.jpg")
                print(f"  {name}: {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    main()
