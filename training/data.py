"""Photos -> training pairs: a gray low-resolution input, its true colours at any magnification."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


class Batch(NamedTuple):
    """One training batch, sRGB in 0..1."""

    low: Tensor
    """(B, 3, size, size): the photo, bicubic, at the input's size."""
    high: Tensor
    """(B, 3, window, window): the truth in the window of the output grid."""
    size: tuple[int, int]
    """The output grid."""
    window: tuple[int, int, int, int]
    """Top, left, height, width in the output grid."""


def find_photos(folder: str | Path) -> list[Path]:
    """All photos below a folder, sorted; ValueError where there is none."""
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"no photos ({', '.join(sorted(SUFFIXES))}) below {folder}")
    return paths


def read_photo(path: Path) -> np.ndarray | None:
    """Photo as uint8 (H, W, 3), or None where it cannot be read."""
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError):
        return None


class Photos:
    """All photos of a folder in memory, and random pairs from them."""

    def __init__(self, folder: str | Path) -> None:
        paths = find_photos(folder)
        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(read_photo, paths))
        self.skipped = [p for p, photo in zip(paths, read, strict=True) if photo is None]
        self.photos = [photo for photo in read if photo is not None]

    def sample(
        self, rng: np.random.Generator, batch: int, size: int, magnification: float, window: int
    ) -> Batch:
        """A random batch: random crops and flips, one magnification and one window."""
        target = max(1, round(size * magnification))
        side = target if window == 0 else min(window, target)
        top, left = (int(v) for v in rng.integers(0, target - side + 1, 2))
        low, high = [], []
        for index in rng.integers(0, len(self.photos), batch):
            crop = random_square(self.photos[index], rng, target)
            full = crop.resize((target, target), Image.Resampling.BICUBIC)
            low.append(np.asarray(full.resize((size, size), Image.Resampling.BICUBIC)))
            high.append(np.asarray(full)[top : top + side, left : left + side])
        return Batch(planes(low), planes(high), (target, target), (top, left, side, side))


def random_square(photo: np.ndarray, rng: np.random.Generator, smallest: int) -> Image.Image:
    """A random square of 60 to 100 % of the short side, not below `smallest`, mirrored half the time."""
    height, width = photo.shape[:2]
    short = min(height, width)
    side = min(short, max(smallest, round(short * rng.uniform(0.6, 1.0))))
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    crop = photo[top : top + side, left : left + side]
    return Image.fromarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


def planes(pictures: list[np.ndarray]) -> Tensor:
    """uint8 (H, W, 3) each -> (B, 3, H, W) in 0..1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
