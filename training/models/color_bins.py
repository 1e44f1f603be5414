"""Colours of the semantic prior: its palette, and how often each colour of it occurs in a photo."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scsnet.color import rgb_to_lab
from scsnet.prior import COLORS
from training.data.dataset import stack_photos
from training.data.photos import centre_square
from training.data.prior_photos import SUBCELLS

BIN = 10  # side of a bin of ab, in CIE units
REACH = 11  # bins on either side of neutral


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
