"""References for training: flipped and elastically distorted copies of the target (Sec. 4.1, Fig. 12)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMA = 17 / 128  # of the smoothing, in sides of the picture
DISPLACEMENT = (4 / 128, 6 / 128)  # standard deviation, in sides of the picture
_COARSE = 32  # the field is smooth: it is made at this size and enlarged


def smooth_noise(batch: int, generator: torch.Generator) -> Tensor:
    """Gaussian-smoothed unit noise (B, 2, 32, 32), sigma `SIGMA` of the side."""
    noise = torch.randn(batch, 2, 2 * _COARSE, 2 * _COARSE, generator=generator)
    x = torch.arange(-_COARSE // 2, _COARSE // 2 + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (x / (SIGMA * _COARSE)) ** 2)
    kernel = (kernel / kernel.square().sum().sqrt()).expand(2, 1, -1)
    noise = F.conv2d(noise, kernel[:, :, :, None], groups=2)
    noise = F.conv2d(noise, kernel[:, :, None, :], groups=2)
    start = (noise.shape[-1] - _COARSE) // 2
    return noise[..., start : start + _COARSE, start : start + _COARSE]


def elastic_copy(planes: Tensor, generator: torch.Generator) -> Tensor:
    """Planes (B, C, H, W), each flipped with probability 1/2 and distorted, the same shape."""
    batch, _, height, width = planes.shape
    low, high = DISPLACEMENT
    strength = low + (high - low) * torch.rand(batch, 1, 1, 1, generator=generator)
    field = smooth_noise(batch, generator) * strength * 2  # grid_sample counts -1..1 across a side
    field = F.interpolate(field, (height, width), mode="bicubic").permute(0, 2, 3, 1)
    flip = torch.where(torch.rand(batch, 1, 1, generator=generator) < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(flip)
    theta = torch.cat(
        [torch.cat([flip, zero, zero], 2), torch.cat([zero, zero + 1, zero], 2)], dim=1
    )  # (B, 2, 3)
    grid = F.affine_grid(theta, [batch, 1, height, width], align_corners=False) + field
    return F.grid_sample(planes, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
