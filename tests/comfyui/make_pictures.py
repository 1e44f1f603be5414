"""The thumbnails of example_workflows/ and the pictures of web/docs/: `python tests/comfyui/make_pictures.py [WORKFLOW...]`.

Runs these shipped workflows (all of them) with the bundled weights on a real ComfyUI (COMFYUI_PATH, COMFYUI_PYTHON; see
README.md) and puts their results together. What is there is overwritten once all have run; after an error nothing is.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path += [str(HERE), str(ROOT)]

from PIL import Image, ImageDraw  # noqa: E402
from server import Server  # noqa: E402
from workflows import FOLDER, WORKFLOWS, read, to_prompt  # noqa: E402

from scsnet.atomic_write import open_atomic  # noqa: E402

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
    with open_atomic(path) as file:
        picture.save(file, "JPEG", quality=85, optimize=True, progressive=True)
    print(f"{path.relative_to(ROOT)}: {picture.width} x {picture.height}, {path.stat().st_size} B")


# --- one function per workflow --------------------------------------------------------------------------------------


class Made(NamedTuple):
    """From one workflow."""

    thumbnail: Image.Image
    help: tuple[str, Image.Image] | None = None
    """Name and picture for the help pages, where they show this workflow."""


def auto_x4(shown: Results) -> Made:
    """Before and after."""
    gray = sample("fair_1900")
    sides = [cover(p, 380, 250) for p in (gray, shown["At its own size"])]
    pixels = gray.resize((4 * gray.width, 4 * gray.height), Image.Resampling.NEAREST)
    return Made(split(pixels, shown["Four times as large"]), ("auto", row(sides)))


def reference(shown: Results) -> Made:
    """Before and after, and the reference."""
    gray, near = sample("mountains_1941"), sample("lake")
    parts = [cover(p, 250, 200) for p in (gray, near, shown["Colours of the reference"])]
    thumbnail = split(gray, shown["Twice as large"])
    inset(thumbnail, near, (8, 268), (150, 118))
    return Made(thumbnail, ("reference", row(parts)))


def several_references(shown: Results) -> Made:
    """The result and the references."""
    thumbnail = cover(shown["Colours of all three"], SIDE, SIDE)
    for number, name in enumerate(("lake", "alps", "autumn")):
        inset(thumbnail, sample(name), (8 + 130 * number, 300), (118, 88))
    return Made(thumbnail)


def continuous_zoom(shown: Results) -> Made:
    """The scales, as large as they are to each other or nearly so."""
    small, window = shown["0.6 times"], shown["A window of 8 times"]
    widths = [(small, 120), (shown["1.37 times"], 190), (shown["2.5 times"], 230), (window, 210)]
    scales = row([cover(picture, width, 180) for picture, width in widths])
    thumbnail = cover(shown["2.5 times"], SIDE, SIDE)
    inset(thumbnail, window, (190, 196), (200, 194))
    inset(thumbnail, small, (8, 8), (100, 76))
    return Made(thumbnail, ("zoom", scales))


def attention_study(shown: Results) -> Made:
    """The figure's upper part: three points' attention; two rows of valves follow below."""
    figure = shown["Figure"]
    upper = figure.crop((0, 0, figure.width, round(0.6 * figure.height)))
    height = round(upper.height * 760 / upper.width)
    upper = upper.resize((760, height), Image.Resampling.LANCZOS)
    half = figure.width // 2
    corner = figure.crop((0, 30, half, 30 + half))  # below the titles
    return Made(corner.resize((SIDE, SIDE), Image.Resampling.LANCZOS), ("attention", upper))


def video_batch(shown: Results) -> Made:
    """Nine of the frames."""
    frames, thumbnail = shown.shown["All frames"], Image.new("RGB", (SIDE, SIDE), (20, 20, 20))
    for k in range(9):
        frame = cover(frames[k * len(frames) // 9], 126, 126)
        thumbnail.paste(frame, (6 + k % 3 * 131, 6 + k // 3 * 131))
    return Made(thumbnail)


def old_photo_restoration(shown: Results) -> Made:
    """Before and after."""
    return Made(split(sample("woman_1903"), shown["Colour added, light and dark as scanned"]))


def color_hints(shown: Results) -> Made:
    """Without and with hints."""
    pictures = [shown["Without hints"], shown["With hints"]]
    parts = [cover(p, 300, 228) for p in (sample("stall_1909"), *pictures)]
    return Made(split(*pictures), ("hints", row(parts)))


def editor_colors(shown: Results) -> Made:
    """The scan and the result, and the editor's picture."""
    thumbnail = split(sample("lake_scan"), shown["The editor's colours on the scan"])
    inset(thumbnail, sample("lake_editor"), (8, 268), (150, 118))
    return Made(thumbnail)


MAKERS: dict[str, Callable[[Results], Made]] = {
    "Colorize a photo and enlarge it 4 times": auto_x4,
    "Colorize with the colours of another photo": reference,
    "Colorize with several reference photos": several_references,
    "Enlarge by any factor": continuous_zoom,
    "See where the colours came from": attention_study,
    "Colorize a video": video_batch,
    "Restore an old photo at its own size": old_photo_restoration,
    "Say which colour goes where": color_hints,
    "Put the colours of an editor on the scan": editor_colors,
}


def main(names: Sequence[str]) -> None:
    """Those of these workflows."""
    assert sorted(MAKERS) == WORKFLOWS, "a workflow has no thumbnail"
    if unknown := set(names) - set(WORKFLOWS):
        raise SystemExit(f"expected some of {', '.join(WORKFLOWS)}, got {', '.join(unknown)}")
    made, begun = {}, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        shutil.copytree(SAMPLES, base / "input")
        with Server(base, {"scsnet": ROOT}) as server:
            for name in names:
                start = time.monotonic()
                made[name] = MAKERS[name](Results(server, name))
                print(f"{name} has run: {time.monotonic() - start:.1f} s", flush=True)
    for name, pictures in made.items():
        save(pictures.thumbnail, FOLDER / f"{name}.jpg")
        if pictures.help:
            save(pictures.help[1], HELP / f"{pictures.help[0]}.jpg")
    print(f"{time.monotonic() - begun:.0f} s in all")


if __name__ == "__main__":
    main(sys.argv[1:] or WORKFLOWS)
