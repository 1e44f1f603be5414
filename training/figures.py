"""Figures 9 and 12 of the paper on your own photo: `python training/figures.py --figure 9 --photo P --output zoom.webp`.

9: continuous magnification, an animated WebP that zooms into the middle of the photo. 12: a sheet of elastic copies, as the
referential training uses them. Figure 8, attention of points: `python -m scsnet attention`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from scsnet import SCSNet, checkpoint, encode_picture, render
from scsnet.atomic_write import open_atomic
from training.config.cli import Parser, parse_options
from training.config.stage import check_ranges
from training.data.photos import centre_square, find_photos, read_photo
from training.data.references import distort_elastically
from training.evaluation.protocol import to_tensor, to_uint8

SUFFIXES = {9: ".webp", 12: ".png"}
MILLISECONDS = 60  # per frame


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the figures."""

    figure: Literal["9", "12"] = "9"
    """Number of the figure."""
    photo: str
    """Photo, of which the centre square is used."""
    output: str
    """A .webp file for figure 9, a .png file for figure 12."""
    weights: str = "bundled"
    """For figure 9: a file, "bundled", or "hf:owner/repo"."""
    reference: str = ""
    """For figure 9: a reference photo. Empty: automatic colours."""
    input: int = 128
    """Side of the gray input, and of the elastic copies."""
    size: int = 256
    """Side of the frames of figure 9."""
    magnification: float = 8.0
    """Largest magnification of figure 9, beside that from input to frame."""
    frames: int = 60
    """Frames of figure 9."""
    copies: int = 7
    """Elastic copies of figure 12."""
    seed: int = 1
    """Seed of the elastic copies."""

    def __post_init__(self) -> None:
        check_ranges(self, "input size", 16)
        check_ranges(self, "frames", 2)
        check_ranges(self, "copies", 1)
        if not 1 < self.magnification <= 32:
            raise ValueError(f"expected magnification in 1..32, got {self.magnification:g}")
        suffix = SUFFIXES[int(self.figure)]
        if Path(self.output).suffix.lower() != suffix:
            raise ValueError(f"expected an output that ends with {suffix}, got {self.output}")


def read_square(path: str, side: int) -> Tensor:
    """Read the centre square of a photo as (1, 3, side, side), sRGB in 0..1."""
    return to_tensor(centre_square(read_photo(find_photos([path])[0]), side))


def render_zoom(net: SCSNet, options: Options) -> list[Image.Image]:
    """Return the frames of figure 9: the middle of the photo at growing magnification, from one encoding."""
    references = [read_square(options.reference, 256)] if options.reference else []
    features = encode_picture(net, read_square(options.photo, options.input), references)
    frames = []
    for number in tqdm(range(options.frames), unit="frame", disable=None):
        grown = options.magnification ** (number / (options.frames - 1))
        side = max(options.size, round(options.size * grown))
        start = (side - options.size) // 2
        window = (start, start, options.size, options.size)
        frames.append(Image.fromarray(to_uint8(render(net, features, (side, side), window))))
    return frames


def draw_copies(options: Options) -> Image.Image:
    """Return the sheet of figure 12: the photo and elastic copies of it, side by side."""
    photo = read_square(options.photo, options.input)
    generator = torch.Generator().manual_seed(options.seed)
    copies = distort_elastically(photo.expand(options.copies, -1, -1, -1), generator)
    return Image.fromarray(to_uint8(torch.cat([photo, *copies.split(1)], dim=3)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and draw a figure."""
    parser = Parser(prog="figures.py", description=__doc__)
    with parser.exit_on_errors():
        options = parse_options(parser, Options, arguments)
        Path(options.output).parent.mkdir(parents=True, exist_ok=True)
        if options.figure == "12":
            sheet = draw_copies(options)
            with open_atomic(Path(options.output)) as file:
                sheet.save(file, "PNG")
        else:
            net = checkpoint.load(options.weights, dtype=torch.float32)
            first, *others = render_zoom(net, options)
            film = {"save_all": True, "append_images": others, "duration": MILLISECONDS, "loop": 0}
            with open_atomic(Path(options.output)) as file:
                first.save(file, "WEBP", quality=90, **film)
    print(options.output)


if __name__ == "__main__":
    main()
