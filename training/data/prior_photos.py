"""Training batches of the semantic prior, its palette, and the targets of its loss: how often a photo has each colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from scsnet.color import rgb_to_lab, srgb_to_linear
from scsnet.prior import COLORS
from training.config.prior import Options
from training.config.schedule import pick_photo
from training.data.dataset import BICUBIC, crop_random_square, stack_photos
from training.data.degradations import add_margins, degrade
from training.data.photos import Cache, Entry, centre_square, read_photo

STRIDE = 16  # side of a cell of the prediction, in pixels
SUBCELLS = 4  # along a side of a cell, whose target is the distribution of 4 x 4 colours
DEGRADED_SIDE = 128  # pixels at which photos are degraded and get margins
CACHED_SIDE = 256  # pixels of the short side of a photo in the cache
BIN = 10  # side of a bin of ab, in CIE units
REACH = 11  # bins on either side of neutral
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


def find_bins(ab: Tensor) -> Tensor:
    """Return the numbers (B, h, w), int64, of the bins that ab (B, 2, h, w), CIE units, are in."""
    a, b = (ab / BIN).round().clamp(-REACH, REACH).long().unbind(1)
    return (a + REACH) * (2 * REACH + 1) + b + REACH


def list_bin_colors() -> Tensor:
    """Return ab (bins, 2) of the centres of all bins, in the order of `find_bins`."""
    side = torch.arange(-REACH, REACH + 1, dtype=torch.float32) * BIN
    return torch.cartesian_prod(side, side)


def count_palette(photos: Iterable[np.ndarray]) -> Tensor:
    """Return ab (COLORS, 2) in CIE units of the bins that contain most pixels of photos, each uint8 (H, W, 3)."""
    colors = list_bin_colors()
    counts = torch.zeros(len(colors))
    for photo in photos:
        small = np.asarray(centre_square(photo, 64))
        bins = find_bins(rgb_to_lab(stack_photos([small]))[:, 1:])
        counts += bins.flatten().bincount(minlength=len(colors))
    counts -= colors.norm(dim=1) * 1e-6  # of bins without a pixel, the duller come first
    return colors[counts.topk(COLORS).indices.sort().values]


def compute_targets(ab: Tensor, inside: Tensor, palette: Tensor) -> Tensor:
    """Count in each cell of the prediction the positions whose nearest colour of the palette is that of the channel.

    ab: (B, 2, H, W), CIE units; inside: bool (B, H, W), positions outside are not counted; palette: (COLORS, 2). Returns
    counts (B, COLORS, H/4, W/4).
    """
    nearest = torch.cdist(list_bin_colors().to(palette), palette).argmin(1)
    index = nearest[find_bins(ab)]  # (B, H, W)
    index = F.pixel_unshuffle(index[:, None], SUBCELLS)  # (B, 16, h, w)
    weight = F.pixel_unshuffle(inside[:, None].float(), SUBCELLS)
    batch, _, h, w = index.shape
    return torch.zeros(batch, COLORS, h, w, device=ab.device).scatter_add_(1, index, weight)


def compute_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the cross entropy of logits (B, COLORS, h, w) and the counts of `compute_targets`, mean over all positions."""
    return -(logits.float().log_softmax(1) * targets).sum() / targets.sum().clamp_min(1)
