"""Training batches of the semantic prior: gray photos and the colours of their positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from scsnet.color import rgb_to_lab, srgb_to_linear
from training.config.prior import Options
from training.config.schedule import pick_photo
from training.data.dataset import BICUBIC, crop_random_square, stack_photos
from training.data.degradations import add_margins, degrade
from training.data.photos import Cache, Entry, read_photo

STRIDE = 16  # side of a cell of the prediction, in pixels
SUBCELLS = 4  # along a side of a cell, whose target is the distribution of 4 x 4 colours
DEGRADED_SIDE = 128  # pixels at which photos are degraded and get margins
CACHED_SIDE = 256  # pixels of the short side of a photo in the cache
_LINEAR = srgb_to_linear(torch.arange(256).view(256, 1, 1) / 255).flatten().numpy()


class PriorBatch(NamedTuple):
    """Photos of one training step of the semantic prior."""

    gray: Tensor
    """(B, 1, size, size), sRGB in 0..1; degraded, with margins."""
    ab: Tensor
    """(B, 2, size/4, size/4), CIE units, of the photos without degradation."""
    inside: Tensor
    """(B, size/4, size/4), bool: false where a margin is."""
    skipped: Sequence[str]
    """Unreadable photos that were replaced by others, each with the reason."""


def convert_to_gray(photo: np.ndarray) -> np.ndarray:
    """Convert sRGB uint8 (H, W, 3) to gray uint8 (H, W) of the same L*."""
    luminance = _LINEAR[photo] @ np.array([0.212671, 0.715160, 0.072169], np.float32)
    curve = 1.055 * np.maximum(luminance, 0.0031308) ** (1 / 2.4) - 0.055
    gray = np.where(luminance > 0.0031308, curve, luminance * 12.92)
    return (gray * 255).round().clip(0, 255).astype(np.uint8)


def change_exposure(gray: Tensor, rng: np.random.Generator) -> Tensor:
    """Change brightness and contrast of one gray picture in three, in 0..1."""
    if rng.random() >= 1 / 3:
        return gray
    return (gray * rng.uniform(0.6, 1.3) + rng.uniform(-0.1, 0.15)).clamp(0, 1)


def read_small_photo(entry: Entry) -> np.ndarray:
    """Read a photo, sRGB uint8 (H, W, 3), and reduce its short side to `CACHED_SIDE`. Raises BadPhotoError."""
    photo = read_photo(entry)
    scale = CACHED_SIDE / min(photo.shape[:2])
    if scale >= 1:
        return photo
    height, width = (max(1, round(n * scale)) for n in photo.shape[:2])
    return np.asarray(Image.fromarray(photo).resize((width, height), BICUBIC, reducing_gap=2.0))


class PriorPhotos(Dataset[PriorBatch]):
    """Batches by step, determined by the seed."""

    def __init__(self, entries: Sequence[Entry], options: Options) -> None:
        self.options = options
        capacity = options.cache * 1e9 / max(1, options.workers)
        self.photos = Cache(entries, capacity, read_small_photo)

    def __getitem__(self, step: int) -> PriorBatch:
        """Return the batch of a step."""
        batch = self.options.batch
        skipped: list[str] = []
        parts = [self._load(n, skipped) for n in range(step * batch, (step + 1) * batch)]
        gray, colors, inside = zip(*parts, strict=True)
        ab = rgb_to_lab(stack_photos(colors))[:, 1:]
        return PriorBatch(torch.stack(gray), ab, torch.from_numpy(np.stack(inside)), skipped)

    def _load(self, number: int, skipped: list[str]) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Return the number-th photo of the run: gray (1, size, size), colours, uint8 (size/4, size/4, 3), and `inside`."""
        rng = np.random.default_rng((self.options.seed, 1, number))
        index = pick_photo(self.options.seed, number, len(self.photos.entries))
        crop = crop_random_square(self.photos.read(index, skipped), rng, 1)
        size, fine = self.options.size, self.options.size // STRIDE * SUBCELLS
        colors = np.asarray(crop.resize((fine, fine), BICUBIC))
        inside = np.ones((fine, fine), bool)
        degrades, has_margins = rng.random(2) < (self.options.degrade, self.options.margins)
        if degrades or has_margins:
            small = np.asarray(crop.resize((DEGRADED_SIDE, DEGRADED_SIDE), BICUBIC))
            if degrades:
                small = degrade(small, rng)
            if has_margins:
                small, kept = add_margins(small, rng)
                mask = Image.fromarray(kept.astype(np.uint8) * 255)
                # A position that a margin touches is outside.
                inside = np.asarray(mask.resize((fine, fine), Image.Resampling.BOX)) == 255
            crop = Image.fromarray(small)
        plane = Image.fromarray(convert_to_gray(np.asarray(crop))).resize((size, size), BICUBIC)
        gray = torch.from_numpy(np.array(plane, np.float32)).unsqueeze(0) / 255
        return change_exposure(gray, rng), colors, inside
