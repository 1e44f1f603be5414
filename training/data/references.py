"""References for training: mirrored and elastically distorted copies of photos (Sec. 4.1, Fig. 12)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMA = 17 / 128
"""Of the Gaussian smoothing, as a fraction of the picture's side."""
DISPLACEMENT = (4 / 128, 6 / 128)
"""Range of the displacement's standard deviation, as a fraction of the picture's side."""
_COARSE = 32  # the field is smooth: it is computed at this size and enlarged


class Distortion(NamedTuple):
    """The random numbers of the elastic copies of B pictures."""

    noise: Tensor
    """(B, 2, 64, 64), standard normal."""
    strength: Tensor
    """(B,): standard deviation of the displacement, as a fraction of the picture's side."""
    flip: Tensor
    """(B,): -1 where the copy is mirrored, else 1."""


def draw_distortion(batch: int, generator: torch.Generator) -> Distortion:
    """Draw random distortions of `batch` pictures."""
    low, high = DISPLACEMENT
    strength = low + (high - low) * torch.rand(batch, generator=generator)
    noise = torch.randn(batch, 2, 2 * _COARSE, 2 * _COARSE, generator=generator)
    flip = torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0)
    return Distortion(noise, strength, flip)


def smooth(noise: Tensor) -> Tensor:
    """Noise (B, 2, 64, 64) -> (B, 2, 32, 32), Gaussian-smoothed with sigma `SIGMA`, of unit deviation."""
    x = torch.arange(-_COARSE // 2, _COARSE // 2 + 1, dtype=torch.float32, device=noise.device)
    kernel = torch.exp(-0.5 * (x / (SIGMA * _COARSE)) ** 2)
    kernel = (kernel / kernel.square().sum().sqrt()).expand(2, 1, -1)
    noise = F.conv2d(noise, kernel[:, :, :, None], groups=2)
    noise = F.conv2d(noise, kernel[:, :, None, :], groups=2)
    start = (noise.shape[-1] - _COARSE) // 2
    return noise[..., start : start + _COARSE, start : start + _COARSE]


def warp(planes: Tensor, distortion: Distortion) -> Tensor:
    """Distort planes (B, C, H, W), mirroring those whose flip is -1; the same shape."""
    batch, _, height, width = planes.shape
    strength = distortion.strength.view(-1, 1, 1, 1)
    field = smooth(distortion.noise) * strength * 2  # grid_sample counts -1..1 across a side
    field = F.interpolate(field, (height, width), mode="bicubic").permute(0, 2, 3, 1)
    theta = torch.zeros(batch, 2, 3, device=planes.device)
    theta[:, 0, 0], theta[:, 1, 1] = distortion.flip, 1.0
    grid = F.affine_grid(theta, [batch, 1, height, width], align_corners=False) + field
    return F.grid_sample(
        planes, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def distort_elastically(planes: Tensor, generator: torch.Generator) -> Tensor:
    """Random elastic copies of planes (B, C, H, W)."""
    return warp(planes, draw_distortion(planes.shape[0], generator))
