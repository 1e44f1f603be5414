"""Make a page of results: `python training/gallery.py --weights W --data PHOTOS --output FOLDER`.

Per photo: the gray input; the results without references, with an elastic copy of the photo, with one and with three
other photos, and with all of these; the original; and a detail at several magnifications beside bicubic interpolation.
Sorted by PSNR of the automatic result, with the best and the worst marked.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from scsnet import SCSNet, checkpoint, encode_picture, render
from scsnet.color import rgb_to_gray
from training.config.cli import Parser, parse_options
from training.config.stage import check_ranges
from training.data.photos import find_photos, read_squares, select_evenly
from training.evaluation import report
from training.evaluation.image_metrics import psnr
from training.evaluation.protocol import BICUBIC, make_reference, picture_name, to_tensor, to_uint8
from training.text import save_text

DETAIL = 32  # side of the detail, in pixels of the input


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the gallery."""

    data: tuple[str, ...]
    """Photos: folders, lists (.txt), shards (.tar)."""
    output: str
    """Folder for index.html and pictures."""
    weights: str = "bundled"
    """A file, "bundled", or "hf:owner/repo"."""
    limit: int = 0
    """Number of photos that are used, spread evenly over all. 0: all."""
    input: int = 128
    """Side of the gray input, from the centre square of a photo."""
    size: int = 512
    """Side of the results."""
    magnifications: tuple[float, ...] = (1.5, 2.3, 3.7, 6.0, 8.0)
    """Magnifications of the detail in the middle."""
    marked: int = 10
    """Number of the best and of the worst photos that are marked."""
    seed: int = 1
    """Seed of the distortions and of the choice of other photos."""

    def __post_init__(self) -> None:
        check_ranges(self, "input size", DETAIL)
        check_ranges(self, "limit marked", 0)
        if bad := [m for m in self.magnifications if not 0.1 <= m <= 64]:
            raise ValueError(f"magnifications must be in 0.1..64, got {bad[0]:g}")


class Photo(NamedTuple):
    """Results of one photo."""

    name: str
    psnr: float
    """PSNR of the automatic result, in dB."""
    pictures: dict[str, np.ndarray]
    """Label -> uint8 (H, W, 3)."""
    details: dict[str, np.ndarray]
    """Label -> enlargement of the detail, uint8 (h, w, 3)."""


@torch.inference_mode()
def show(
    net: SCSNet, name: str, square: Image.Image, others: Sequence[Tensor], options: Options
) -> Photo:
    """Compute all results of one photo; `others` are references (1, 3, h, w), sRGB in 0..1."""
    size, side = (options.size, options.size), options.input
    truth = square.resize(size, BICUBIC)
    low = to_tensor(truth.resize((side, side), BICUBIC))
    gray, own = rgb_to_gray(low), make_reference(low, options.seed)
    features = encode_picture(net, gray)
    pictures = {"input": to_uint8(gray), "automatic": to_uint8(render(net, features, size))}
    references: dict[str, Sequence[Tensor]] = {
        "an elastic copy": (own,),
        "another photo": others[:1],
        f"{len(others)} other photos": others,
        f"its own copy and {len(others)} other photos": (*others, own),
    }
    for label, given in references.items():
        pictures[label] = to_uint8(render(net, encode_picture(net, gray, given), size))
    if others:
        pictures["the first other photo"] = to_uint8(others[0])
    pictures["truth"] = np.asarray(truth)
    details: dict[str, np.ndarray] = {}
    for magnification in options.magnifications:
        whole = round(side * magnification)
        corner = round((0.5 - DETAIL / side / 2) * whole)
        width = round(DETAIL / side * whole)
        result = render(net, features, (whole, whole), (corner, corner, width, width))
        details[f"x{magnification:g}"] = to_uint8(result)
        enlarged = Image.fromarray(pictures["input"]).resize((whole, whole), BICUBIC)
        box = (corner, corner, corner + width, corner + width)
        details[f"x{magnification:g} bicubic"] = np.asarray(enlarged.crop(box))
    return Photo(name, psnr(pictures["automatic"], pictures["truth"]), pictures, details)


def make_section(photo: Photo, place: int, mark: str, folder: Path) -> str:
    """Write the pictures of a photo into a folder; return its section of the page."""
    rows = []
    for kind, pictures in (("whole", photo.pictures), ("detail", photo.details)):
        stem = f"{place:03}_{picture_name(photo.name)}_{kind}"
        files = [folder / f"{stem}{number}.jpg" for number in range(len(pictures))]
        rows.append(map(report.render_figure, files, pictures.keys(), pictures.values()))
    title = f"{mark}{Path(photo.name).name}, automatic {photo.psnr:.2f} dB"
    return report.render_section(title, rows)


def gallery(net: SCSNet, options: Options) -> list[Photo]:
    """Write the page; return the photos, the best first. Raises ValueError if no photo can be read."""
    skipped: list[str] = []
    entries = select_evenly(find_photos(options.data), options.limit)
    found = [(entry.name, square) for entry, square in read_squares(entries, options.size, skipped)]
    if not found:
        raise ValueError(f"none of the {len(entries)} photos can be read; the first: {skipped[0]}")
    lows = [to_tensor(square.resize((options.input,) * 2, BICUBIC)) for _, square in found]
    rng = np.random.default_rng(options.seed)
    photos = []
    for index, (name, square) in enumerate(tqdm(found, unit="photo", disable=None)):
        others = [i for i in rng.permutation(len(found)) if i != index][:3]
        photos.append(show(net, name, square, [lows[i] for i in others], options))
    photos.sort(key=lambda photo: -photo.psnr)
    folder = Path(options.output, "pictures")
    folder.mkdir(parents=True, exist_ok=True)
    sections = []
    for place, photo in enumerate(photos):
        best, worst = place < options.marked, place >= len(photos) - options.marked
        mark = f"best {place + 1}: " if best else f"worst {len(photos) - place}: " if worst else ""
        sections.append(make_section(photo, place, mark, folder))
    text = f"{len(photos)} photos, {options.input} -> {options.size} px, weights: {options.weights}"
    page = report.render_page("SCSNet: gallery", text, sections)
    save_text(Path(options.output, "index.html"), page)
    return photos


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and write the page."""
    parser = Parser(prog="gallery.py", description=__doc__)
    with parser.exit_on_errors():
        options = parse_options(parser, Options, arguments)
        gallery(checkpoint.load(options.weights, dtype=torch.float32).eval(), options)
        print(f"page: {Path(options.output, 'index.html')}")


if __name__ == "__main__":
    main()
