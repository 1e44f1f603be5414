"""Sizes and windows: how large the colour branch works, what is padded, how an output is cut up."""

from __future__ import annotations

from collections.abc import Iterator
from math import floor, sqrt
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

STRIDE = 4  # of F_s and F_r against the picture


class Window(NamedTuple):
    """A part of an output grid, in output pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """One past the last row."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """One past the last column."""
        return self.left + self.width

    def blocks(self, height: int, width: int) -> Iterator[Window]:
        """This window cut into blocks of at most height x width, row by row."""
        for top in range(self.top, self.bottom, height):
            for left in range(self.left, self.right, width):
                yield Window(
                    top, left, min(height, self.bottom - top), min(width, self.right - left)
                )


def validate_window(size: tuple[int, int], window: tuple[int, int, int, int] | None) -> Window:
    """`window`, or all of `size`; ValueError where it is empty or reaches beyond the grid."""
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"output size must be at least 1 x 1, got {height} x {width}")
    asked = Window(0, 0, height, width) if window is None else Window(*window)
    if min(asked.height, asked.width) < 1 or min(asked.top, asked.left) < 0:
        raise ValueError(
            f"window must have a positive size and start inside the picture, got {asked}"
        )
    if asked.bottom > height or asked.right > width:
        raise ValueError(f"window {asked} reaches beyond the output of {height} x {width} pixels")
    return asked


def crop(x: Tensor, window: Window, dim: int) -> Tensor:
    """A window along dimensions `dim` and `dim` + 1; all of them is x itself, with no copy on the way back."""
    starts, lengths = (window.top, window.left), (window.height, window.width)
    for d, start, length in zip((dim, dim + 1), starts, lengths, strict=True):
        if length != x.shape[d]:
            x = x.narrow(d, start, length)
    return x


def join_blocks(tiles: Iterator[tuple[Window, Tensor]]) -> Tensor:
    """Blocks in row order put together by concatenation, which gradients pass through."""
    bands: dict[int, list[Tensor]] = {}
    for block, lab in tiles:
        bands.setdefault(block.top, []).append(lab)
    return torch.cat([torch.cat(band, dim=3) for band in bands.values()], dim=2)


def compute_working_shape(height: int, width: int, working_size: int) -> tuple[int, int]:
    """Size at which the colour branch sees a picture: the same shape, at most working_size² pixels.

    A picture that fits stays as it is (the paper); a larger one comes down to multiples of 4.
    """
    if working_size < STRIDE:
        raise ValueError(f"working size must be at least {STRIDE} pixels, got {working_size}")
    if height * width <= working_size**2:
        return height, width
    scale = working_size / sqrt(height * width)
    return fitted(height, scale), fitted(width, scale)


def fitted(length: int, scale: float) -> int:
    """A side brought down to the nearest multiple of 4, at least 4."""
    return max(STRIDE, floor(length * scale / STRIDE + 0.5) * STRIDE)


def resize_to_working_size(planes: Tensor, working_size: int) -> Tensor:
    """Planes (B, C, H, W) at their working shape, antialiased."""
    shape = compute_working_shape(planes.shape[2], planes.shape[3], working_size)
    if shape == tuple(planes.shape[2:]):
        return planes
    return F.interpolate(planes, shape, mode="bilinear", antialias=True)


def pad_to_stride(planes: Tensor) -> Tensor:
    """Sides brought up to multiples of 4: by reflection, by repetition where that cannot reach."""
    bottom, right = (-planes.shape[2]) % STRIDE, (-planes.shape[3]) % STRIDE
    planes = _pad(planes, (0, 0, 0, bottom), planes.shape[2] > bottom)
    return _pad(planes, (0, right, 0, 0), planes.shape[3] > right)


def _pad(planes: Tensor, amount: tuple[int, int, int, int], reflects: bool) -> Tensor:
    if not any(amount):
        return planes
    return F.pad(planes, amount, mode="reflect" if reflects else "replicate")
