"""References for training: flipped and elastically distorted copies of the target (Sec. 4.1, Fig. 12), and masks of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

SIGMA = 17 / 128  # of the smoothing, in sides of the picture
DISPLACEMENT = (4 / 128, 6 / 128)  # standard deviation, in sides of the picture
_COARSE = 32  # the field is smooth: it is made at this size and enlarged


class Distortion(NamedTuple):
    """The random part of elastic copies of B pictures."""

    noise: Tensor
    """(B, 2, 64, 64), standard normal."""
    strength: Tensor
    """(B,): standard deviation of the displacement, in sides of the picture."""
    flip: Tensor
    """(B,): -1 where the copy is mirrored, else 1."""


def draw_distortion(batch: int, generator: torch.Generator) -> Distortion:
    """Draw a random distortion of `batch` pictures."""
    low, high = DISPLACEMENT
    strength = low + (high - low) * torch.rand(batch, generator=generator)
    noise = torch.randn(batch, 2, 2 * _COARSE, 2 * _COARSE, generator=generator)
    flip = torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0)
    return Distortion(noise, strength, flip)


def keep_undistorted(distortion: Distortion) -> Distortion:
    """Return the distortion whose copies equal the pictures."""
    strength, flip = torch.zeros_like(distortion.strength), torch.ones_like(distortion.flip)
    return distortion._replace(strength=strength, flip=flip)


def draw_mask(size: int, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """Draw a random mask of a reference of size x size pixels: bool (size, size), and whether it marks regions.

    Two in five mark one to three regions, which another photo could have; the others mark up to 8 strokes or 40 dots, as
    people put colours on the gray photo itself.
    """
    image = Image.new("1", (size, size))
    draw = ImageDraw.Draw(image)
    kind = rng.random()
    if kind < 0.4:
        for _ in range(rng.integers(1, 4)):
            centre, half = rng.uniform(0, size, 2), rng.uniform(0.1, 0.4, 2) * size
            shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
            shape([*(centre - half), *(centre + half)], fill=1)
    elif kind < 0.55:
        for _ in range(rng.integers(1, 9)):
            points = rng.uniform(0, size, 2) + rng.uniform(-0.15, 0.15, (3, 2)).cumsum(0) * size
            width = round(rng.uniform(1, 5) * size / 128)
            draw.line([tuple(point) for point in points], fill=1, width=max(1, width))
    else:
        for _ in range(round(np.exp(rng.uniform(0, np.log(40))))):
            side = max(1, round(rng.uniform(1, 6) * size / 128))
            x, y = rng.integers(0, size - side + 1, 2)
            draw.rectangle([x, y, x + side - 1, y + side - 1], fill=1)
    mask = np.array(image)
    if not mask.any():  # everything lies outside
        mask[tuple(rng.integers(0, size, 2))] = True
    return mask, bool(kind < 0.4)


def smooth(noise: Tensor) -> Tensor:
    """Smooth noise (B, 2, 64, 64) with a Gaussian of `SIGMA` of the side; returns (B, 2, 32, 32) of unit deviation."""
    x = torch.arange(-_COARSE // 2, _COARSE // 2 + 1, dtype=torch.float32, device=noise.device)
    kernel = torch.exp(-0.5 * (x / (SIGMA * _COARSE)) ** 2)
    kernel = (kernel / kernel.square().sum().sqrt()).expand(2, 1, -1)
    noise = F.conv2d(noise, kernel[:, :, :, None], groups=2)
    noise = F.conv2d(noise, kernel[:, :, None, :], groups=2)
    start = (noise.shape[-1] - _COARSE) // 2
    return noise[..., start : start + _COARSE, start : start + _COARSE]


def warp(planes: Tensor, distortion: Distortion) -> Tensor:
    """Mirror and distort planes (B, C, H, W); returns the same shape."""
    batch, _, height, width = planes.shape
    strength = distortion.strength.view(-1, 1, 1, 1)
    field = smooth(distortion.noise) * strength * 2  # grid_sample counts -1..1 across a side
    field = F.interpolate(field, (height, width), mode="bicubic").permute(0, 2, 3, 1)
    theta = torch.zeros(batch, 2, 3, device=planes.device)
    theta[:, 0, 0], theta[:, 1, 1] = distortion.flip, 1.0
    grid = F.affine_grid(theta, [batch, 1, height, width], align_corners=False) + field
    return F.grid_sample(planes, grid, padding_mode="reflection", align_corners=False)


def distort_elastically(planes: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random elastic copy of each picture, (B, C, H, W)."""
    return warp(planes, draw_distortion(planes.shape[0], generator))
