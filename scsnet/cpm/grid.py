"""The output grid of CPM: sampling positions and relative coordinates of Eq. 3, along one axis."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..config import Alignment
from ..resample import Taps, compute_centred_taps, compute_linear_taps, copy_taps_to_host, exact


class Axis(NamedTuple):
    """Output pixels start..stop along one axis of the output grid."""

    taps: Taps
    """Bilinear taps: the two source pixels around each output pixel, and their weights."""
    relative: Tensor
    """(n,) float32: relative coordinate Z of Eq. 3, -1..+1 within the cell of a source pixel."""
    magnification: float
    """Output pixels per source pixel."""

    def part(self, start: int, stop: int) -> Axis:
        """Return the output pixels start..stop of this axis."""
        return self._replace(taps=self.taps.part(start, stop), relative=self.relative[start:stop])


def build_axis(
    n_in: int,
    n_out: int,
    start: int,
    stop: int,
    align: Alignment,
    device: torch.device | str = "cpu",
) -> Axis:
    """Return the output pixels start..stop of an axis of n_out output and n_in source pixels (Eq. 3).

    `align="paper"`: x = j / (Wt - 1), features with aligned corners. `align="centre"`: x = (j + 0.5) / Wt, the centre of
    the output pixel, for features and coordinates; input and output then cover the same area, as with a resize.

    Positions are computed in integers: frac(x Ws) in float32 often falls into the wrong cell.
    """
    j = torch.arange(start, stop, device=exact(device))
    if align == "centre":
        taps = compute_centred_taps(n_in, n_out, start, stop, device)
        cell = ((2 * j + 1) * n_in) % (2 * n_out)
        relative = cell.double() / (2 * n_out)
    else:
        last = max(n_out - 1, 1)
        taps = copy_taps_to_host(lambda d: _cornered_taps(n_in, last, start, stop, d), device)
        relative = ((j * n_in) % last).double() / last
    return Axis(taps, (relative * 2 - 1).float().to(device), n_out / n_in)


def _cornered_taps(n_in: int, last: int, start: int, stop: int, device: torch.device) -> Taps:
    """Bilinear taps with aligned corners: output 0 on the first input, output `last` on the last one."""
    j = torch.arange(start, stop, device=device)
    whole = torch.div(j * (n_in - 1), last, rounding_mode="floor")
    fraction = ((j * (n_in - 1)) % last).double().div(last).float()
    return compute_linear_taps(whole, fraction, n_in)
