"""The thumbnails of example_workflows/ and the pictures of web/docs/: `python tests/comfyui/make_pictures.py [WORKFLOW...]`.

Runs these shipped workflows (all of them) with the bundled weights on a real ComfyUI (COMFYUI_PATH, COMFYUI_PYTHON; see
README.md) and puts their results together. What is there is overwritten once all have run; after an error nothing is.
"""

import shutil
import sys
import tempfile
from io import BytesIO
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path += [str(HERE), str(ROOT)]

import numpy as np  # noqa: E402
from PIL import Image, ImageDraw, ImageOps  # noqa: E402
from server import Server  # noqa: E402
from workflows import FOLDER, WORKFLOWS, read, to_prompt  # noqa: E402

from scsnet.atomic_write import open_atomic  # noqa: E402

SAMPLES, HELP = ROOT / "web" / "samples", ROOT / "web" / "docs" / "pictures"
SIDE = 400  # of a thumbnail
GAP = 6


def show(server, name):
    """Run a workflow; return {title of the preview: [picture]}."""
    workflow = read(name)
    outputs = server.run(to_prompt(workflow, server.get("/object_info")), timeout=600)
    return {
        node["title"]: [
            Image.open(BytesIO(server.view(file))).convert("RGB")
            for file in outputs[str(node["id"])]["images"]
        ]
        for node in workflow["nodes"]
        if node["type"] == "PreviewImage"
    }


def sample(name):
    """A picture that the workflows load."""
    return Image.open(SAMPLES / f"scsnet_{name}.jpg").convert("RGB")


def fit(picture, width, height):
    """The middle of the picture, resized to fill width x height."""
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def split(before, after):
    """A square, before on the left of a slanted line, after on the right."""
    upper, lower = round(0.62 * SIDE), round(0.38 * SIDE)
    mask = Image.new("L", (4 * SIDE, 4 * SIDE))
    corners = [(4 * upper, 0), (4 * SIDE, 0), (4 * SIDE, 4 * SIDE), (4 * lower, 4 * SIDE)]
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    mask = mask.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    result = Image.composite(fit(after, SIDE, SIDE), fit(before, SIDE, SIDE), mask)
    ImageDraw.Draw(result).line([(upper, 0), (lower, SIDE)], fill="white", width=3)
    return result


def row(pictures):
    """Pictures of one height side by side."""
    gap = Image.new("RGB", (GAP, pictures[0].height), "white")
    parts = [np.asarray(part) for picture in pictures for part in (gap, picture)]
    return Image.fromarray(np.hstack(parts[1:]))


def inset(into, picture, place, size):
    """A small picture with a white frame, whose corner is at `place`."""
    into.paste(ImageOps.expand(fit(picture, *size), 3, "white"), place)


def save(picture, path):
    """JPEG."""
    with open_atomic(path) as file:
        picture.save(file, "JPEG", quality=85, optimize=True, progressive=True)
    print(f"{path.relative_to(ROOT)}: {picture.width} x {picture.height}, {path.stat().st_size} B")


# One function per workflow: its results, by title, -> its thumbnail, and a picture for the help pages or None.


def auto_x4(shown):
    gray = sample("fair_1900")
    sides = [fit(p, 380, 250) for p in (gray, shown["At its own size"][0])]
    pixels = gray.resize((4 * gray.width, 4 * gray.height), Image.Resampling.NEAREST)
    return split(pixels, shown["Four times as large"][0]), row(sides)


def reference(shown):
    gray, near = sample("mountains_1941"), sample("lake")
    parts = [fit(p, 250, 200) for p in (gray, near, shown["Colours of the reference"][0])]
    thumbnail = split(gray, shown["Twice as large"][0])
    inset(thumbnail, near, (8, 268), (150, 118))
    return thumbnail, row(parts)


def several_references(shown):
    thumbnail = fit(shown["Colours of all three"][0], SIDE, SIDE)
    for number, name in enumerate(("lake", "alps", "autumn")):
        inset(thumbnail, sample(name), (8 + 130 * number, 300), (118, 88))
    return thumbnail, None


def zoom(shown):
    """The scales, as large as they are to each other or nearly so."""
    titles = {"0.6 times": 120, "1.37 times": 190, "2.5 times": 230, "A window of 8 times": 210}
    scales = row([fit(shown[title][0], width, 180) for title, width in titles.items()])
    thumbnail = fit(shown["2.5 times"][0], SIDE, SIDE)
    inset(thumbnail, shown["A window of 8 times"][0], (190, 196), (200, 194))
    inset(thumbnail, shown["0.6 times"][0], (8, 8), (100, 76))
    return thumbnail, scales


def attention(shown):
    """The figure's upper part: three points' attention; two rows of valves follow below."""
    figure = shown["Figure"][0]
    upper = figure.crop((0, 0, figure.width, round(0.6 * figure.height)))
    upper = upper.resize((760, round(upper.height * 760 / upper.width)), Image.Resampling.LANCZOS)
    half = figure.width // 2
    corner = figure.crop((0, 30, half, 30 + half))  # below the titles
    return corner.resize((SIDE, SIDE), Image.Resampling.LANCZOS), upper


def video(shown):
    """Nine of the frames."""
    frames, thumbnail = shown["All frames"], Image.new("RGB", (SIDE, SIDE), (20, 20, 20))
    for k in range(9):
        frame = fit(frames[k * len(frames) // 9], 126, 126)
        thumbnail.paste(frame, (6 + k % 3 * 131, 6 + k // 3 * 131))
    return thumbnail, None


def restoration(shown):
    return split(sample("woman_1903"), shown["Colour added, light and dark as scanned"][0]), None


def hints(shown):
    pictures = [shown[f"{word} hints"][0] for word in ("Without", "With")]
    return split(*pictures), row([fit(p, 300, 228) for p in (sample("stall_1909"), *pictures)])


def editor(shown):
    thumbnail = split(sample("lake_scan"), shown["The editor's colours on the scan"][0])
    inset(thumbnail, sample("lake_editor"), (8, 268), (150, 118))
    return thumbnail, None


MAKERS = {
    "Colorize a photo and enlarge it 4 times": (auto_x4, "auto"),
    "Colorize with the colours of another photo": (reference, "reference"),
    "Colorize with several reference photos": (several_references, None),
    "Enlarge by any factor": (zoom, "zoom"),
    "See where the colours came from": (attention, "attention"),
    "Colorize a video": (video, None),
    "Restore an old photo at its own size": (restoration, None),
    "Say which colour goes where": (hints, "hints"),
    "Put the colours of an editor on the scan": (editor, None),
}


def main(names):
    """Those of these workflows."""
    assert sorted(MAKERS) == WORKFLOWS, "a workflow has no thumbnail"
    if unknown := set(names) - set(WORKFLOWS):
        raise SystemExit(f"expected some of {', '.join(WORKFLOWS)}, got {', '.join(unknown)}")
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        shutil.copytree(SAMPLES, base / "input")
        with Server(base, {"scsnet": ROOT}) as server:
            for name in names:
                made[name] = MAKERS[name][0](show(server, name))
    for name, (thumbnail, picture) in made.items():
        save(thumbnail, FOLDER / f"{name}.jpg")
        if picture:
            save(picture, HELP / f"{MAKERS[name][1]}.jpg")


if __name__ == "__main__":
    main(sys.argv[1:] or WORKFLOWS)
