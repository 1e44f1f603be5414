"""Separable resampling of a whole picture or a window of the result, and the sizes the colour branch works at.

Input of `n_in` and output of `n_out` pixels cover the same area: output pixel i lies at (i + 0.5) * n_in / n_out - 0.5 of
the input. Positions are computed from the global index in integers, so a window has exactly the pixels of the whole.

Taps have float32 weights. `resample` and `resample_features` convert them to the dtype of the planes and return that
dtype: use float32 planes for pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from math import floor, sqrt
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

STRIDE = 4  # of F_s and F_r relative to the input
WITHOUT_DOUBLES = {"mps"}  # kinds of device that have no float64


def exact(device: torch.device | str) -> torch.device:
    """Return the device to compute positions on: `device`, or the CPU if it lacks float64."""
    device = torch.device(device)
    return torch.device("cpu") if device.type in WITHOUT_DOUBLES else device


class Taps(NamedTuple):
    """The input pixels of each output pixel along one axis, and their weights."""

    source: Tensor
    """(n, k) int64 indices, clamped to the picture: its border pixels are repeated."""
    weight: Tensor
    """(n, k) float32; every row sums to 1."""
    host: tuple[Tensor, Tensor] | None = None
    """CPU copies of both if they are on another device, so that `span` and `identity` need no synchronisation."""

    def _on_host(self) -> tuple[Tensor, Tensor]:
        return self.host or (self.source, self.weight)

    def span(self) -> tuple[int, int]:
        """Return the first input pixel used, and one past the last."""
        source, _ = self._on_host()
        return int(source.min()), int(source.max()) + 1

    def part(self, start: int, stop: int) -> Taps:
        """Return the taps of output pixels start..stop."""
        host = self.host and (self.host[0][start:stop], self.host[1][start:stop])
        return Taps(self.source[start:stop], self.weight[start:stop], host)

    def shifted(self, start: int) -> Taps:
        """Return the same taps for an input cropped to begin at pixel `start`."""
        host = self.host and (self.host[0] - start, self.host[1])
        return Taps(self.source - start, self.weight, host)

    def identity(self, n_in: int) -> bool:
        """Return whether the result equals an input of `n_in` pixels."""
        if self.source.shape[0] != n_in:
            return False
        source, weight = self._on_host()
        pixels = torch.arange(n_in, device=source.device)
        return bool(((source[:, 0] == pixels) & (weight[:, 0] == 1)).all())

    def matrix(self, n_in: int, dtype: torch.dtype) -> Tensor:
        """Return the taps as a dense matrix (n, n_in) of `dtype`."""
        dense = self.weight.new_zeros(self.source.shape[0], n_in)
        return dense.scatter_add_(1, self.source, self.weight).to(dtype)


def copy_taps_to_host(make: Callable[[torch.device], Taps], device: torch.device | str) -> Taps:
    """Return `make(device)` with copies in host memory, which are computed there instead of transferred."""
    device, here = torch.device(device), torch.device("cpu")
    host = make(here)
    if device == here:
        return host
    there = make(device) if exact(device) == device else host
    return Taps(there.source.to(device), there.weight.to(device), host[:2])


def compute_pixel_centres(
    n_in: int, n_out: int, start: int, stop: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return the input positions of output pixels start..stop: integer part (int64) and fraction (float32, 0..1)."""
    i = torch.arange(start, stop, device=device)
    numerator = (2 * i + 1) * n_in - n_out  # position * 2 n_out
    whole = torch.div(numerator, 2 * n_out, rounding_mode="floor")
    fraction = (numerator - whole * 2 * n_out).double() / (2 * n_out)
    return whole, fraction.float()


def compute_linear_taps(whole: Tensor, fraction: Tensor, n_in: int) -> Taps:
    """Return bilinear taps, two neighbours each."""
    index = torch.stack([whole, whole + 1], dim=1).clamp(0, n_in - 1)
    return Taps(index, torch.stack([1 - fraction, fraction], dim=1))


def compute_centred_taps(
    n_in: int, n_out: int, start: int, stop: int, device: torch.device | str = "cpu"
) -> Taps:
    """Return bilinear taps of output pixels start..stop; both grids cover the same area."""
    return copy_taps_to_host(
        lambda d: compute_linear_taps(*compute_pixel_centres(n_in, n_out, start, stop, d), n_in),
        device,
    )


def _keys(x: Tensor) -> Tensor:
    """Evaluate the cubic kernel of Keys with a = -0.5, as Pillow's BICUBIC."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def compute_cubic_taps(
    n_in: int, n_out: int, start: int, stop: int, device: torch.device | str = "cpu"
) -> Taps:
    """Return bicubic taps of output pixels start..stop, antialiased when downscaling, as Pillow's BICUBIC."""
    return copy_taps_to_host(lambda d: _cubic_taps(n_in, n_out, start, stop, d), device)


def _cubic_taps(n_in: int, n_out: int, start: int, stop: int, device: torch.device) -> Taps:
    whole, fraction = compute_pixel_centres(n_in, n_out, start, stop, device)
    stretch = max(1.0, n_in / n_out)
    reach = int(2 * stretch) + 1
    offset = torch.arange(-reach, reach + 2, device=device)
    weight = _keys((offset[None, :] - fraction[:, None]) / stretch)
    index = whole[:, None] + offset[None, :]
    # As in Pillow, taps beyond the border are dropped and the rest is normalised.
    weight = torch.where((index < 0) | (index >= n_in), torch.zeros_like(weight), weight)
    return Taps(index.clamp(0, n_in - 1), weight / weight.sum(1, keepdim=True))


def _along(planes: Tensor, taps: Taps, dim: int) -> Tensor:
    """Resample dimension `dim`, 2 or 3, of (B, C, H, W), tap by tap."""
    shape = [1, 1, 1, 1]
    shape[dim] = -1
    total: Tensor | None = None
    for k in range(taps.source.shape[1]):
        weight = taps.weight[:, k].view(shape).to(planes.dtype)
        part = planes.index_select(dim, taps.source[:, k]) * weight
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


def resample(planes: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Resample (B, C, H, W) to (B, C, rows, columns) in the dtype of the planes; reads only the pixels used."""
    top, bottom = rows.span()
    left, right = columns.span()
    part = planes[..., top:bottom, left:right]
    return _along(_along(part, rows.shifted(top), 2), columns.shifted(left), 3)


def resample_features(planes: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Do the same as `resample` by two matrix products, for many channels; the result is channels-last in memory."""
    top, bottom = rows.span()
    left, right = columns.span()
    part = planes[..., top:bottom, left:right].permute(0, 2, 3, 1)  # (B, h, w, C)
    batch, height, width, channels = part.shape
    down = rows.shifted(top).matrix(height, planes.dtype)  # (rows, h)
    across = columns.shifted(left).matrix(width, planes.dtype)  # (columns, w)
    lines = down @ part.reshape(batch, height, width * channels)
    return (across @ lines.view(batch, -1, width, channels)).permute(0, 3, 1, 2)


def resample_bicubic(
    planes: Tensor, size: tuple[int, int], window: tuple[int, int, int, int] | None = None
) -> Tensor:
    """Resize planes (B, C, H, W) to `size`, or to the window (top, left, height, width) of it."""
    top, left, height, width = window or (0, 0, *size)
    rows = compute_cubic_taps(planes.shape[2], size[0], top, top + height, planes.device)
    columns = compute_cubic_taps(planes.shape[3], size[1], left, left + width, planes.device)
    return resample(planes, rows, columns)


def compute_working_shape(height: int, width: int, working_size: int) -> tuple[int, int]:
    """Return the height and width at which the colour branch sees a picture: about working_size² pixels.

    A picture that fits keeps its size, as in the paper. A larger one is reduced to multiples of 4, keeping its aspect
    ratio; rounding may exceed the bound by 1/8. Where it would by more, as for pictures a few pixels wide, the long
    side is shortened instead.
    """
    if working_size < STRIDE:
        raise ValueError(f"working size must be at least {STRIDE} pixels, got {working_size}")
    area = working_size**2
    if height * width <= area:
        return height, width
    scale = working_size / sqrt(height * width)
    rows, columns = (max(STRIDE, floor(n * scale / STRIDE + 0.5) * STRIDE) for n in (height, width))
    if 8 * rows * columns > 9 * area:
        longest = max(STRIDE, area // min(rows, columns) // STRIDE * STRIDE)
        rows, columns = min(rows, longest), min(columns, longest)
    return rows, columns


def resize_to_working_size(planes: Tensor, working_size: int) -> Tensor:
    """Resize planes (B, C, H, W) to their working shape, bilinear with antialiasing."""
    shape = compute_working_shape(planes.shape[2], planes.shape[3], working_size)
    return resize_smoothly(planes, shape)


def resize_smoothly(planes: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize planes (B, C, H, W) to a height and width, bilinear with antialiasing."""
    if shape == tuple(planes.shape[2:]):
        return planes
    return F.interpolate(planes, shape, mode="bilinear", antialias=True)


def resize_masked(
    planes: Tensor, mask: Tensor | None, working_size: int
) -> tuple[Tensor, Tensor | None]:
    """Resize planes (B, C, H, W) and their mask (1 or B, 1, H, W), if there is one, to the working shape.

    See `resize_marks`. Raises ValueError for a mask of another shape.
    """
    shape = compute_working_shape(planes.shape[2], planes.shape[3], working_size)
    if mask is None:
        return resize_smoothly(planes, shape), None
    mask = mask.to(planes)
    if mask.ndim != 4 or mask.shape[1] != 1 or mask.shape[2:] != planes.shape[2:]:
        expected = f"(B, 1, {planes.shape[2]}, {planes.shape[3]})"
        raise ValueError(f"expected a mask {expected}, got shape {tuple(mask.shape)}")
    return resize_marks(planes, mask, shape)


def resize_marks(planes: Tensor, mask: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resize planes (B, C, H, W) and their mask (1 or B, 1, H, W) to a height and width.

    A result is marked, 1, if any of its pixels is (mask of 0.5 or more), and then has the mean of the marked ones alone, so that
    a thin stroke keeps its colour.
    """
    marked = (mask >= 0.5).to(planes.dtype)
    if shape == tuple(planes.shape[2:]):
        return planes, marked
    covered = resize_smoothly(marked, shape)
    sums = resize_smoothly(planes * marked, shape)
    small = F.adaptive_max_pool2d(marked, shape) * (covered > 0)
    inside = sums / torch.where(covered > 0, covered, torch.ones_like(covered))
    return torch.where(small > 0, inside, resize_smoothly(planes, shape)), small


def spread_marked_colors(lab: Tensor, mask: Tensor) -> Tensor:
    """Return LAB (B, 3, H, W) whose ab outside the mask (1 or B, 1, H, W) of 0 and 1 are those of the marked places nearby.

    So that what is not marked neither gives its colours nor dilutes those beside it: phi_E^r sees a few pixels around each
    position. Marked colours are averaged over cells of doubling size, and each place takes those of the smallest cell that has
    some, interpolated bilinearly. A mask of zeros gives ab of 0.
    """
    ab = lab[:, 1:]
    sums, covered = ab * mask, mask.to(ab)
    levels = []
    while max(sums.shape[2:]) > 1:
        levels.append((sums, covered))
        sums, covered = (F.avg_pool2d(x, 2, ceil_mode=True) for x in (sums, covered))
    levels.append((sums, covered))
    spread = torch.zeros_like(sums)
    for sums, covered in reversed(levels):
        spread = F.interpolate(spread, sums.shape[2:], mode="bilinear")
        spread = torch.where(covered > 0, sums / covered.clamp_min(1e-12), spread)
    return torch.cat([lab[:, :1], spread], dim=1)


def pad_to_stride(planes: Tensor) -> Tensor:
    """Pad planes (B, C, H, W) at the bottom and right to multiples of 4: by reflection, or replication of small sides."""
    bottom, right = (-planes.shape[2]) % STRIDE, (-planes.shape[3]) % STRIDE
    planes = _pad(planes, (0, 0, 0, bottom), planes.shape[2] > bottom)
    return _pad(planes, (0, right, 0, 0), planes.shape[3] > right)


def _pad(planes: Tensor, amount: tuple[int, int, int, int], reflects: bool) -> Tensor:
    if not any(amount):
        return planes
    return F.pad(planes, amount, mode="reflect" if reflects else "replicate")
