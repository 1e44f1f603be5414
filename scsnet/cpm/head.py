"""CPM, continuous pixel mapping: features and a grid of output pixels -> LAB planes (Eq. 3, Fig. 6).

Every output pixel takes the features F_cs around it by bilinear interpolation and its coordinate Z
relative to the cell of the source pixel that it falls into, -1..+1, and maps both through four linear
layers. Two facts make this fast without changing the result beyond rounding:

- the first linear layer commutes with bilinear interpolation, and the 3x3 convolution that makes F_cs
  has no activation: both are one 3x3 convolution at source size (`folded`);
- interpolation over a grid is separable: two small matrix products, not a gather.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Alignment
from ..layers import conv3x3
from ..resample import Taps, compute_centred_taps, compute_linear_taps, copy_taps_to_host, exact
from . import dispatch, onednn_kernel


class Axis(NamedTuple):
    """Output pixels start..stop along one axis of the output grid."""

    taps: Taps
    """Which source pixels each lies between, bilinear."""
    relative: Tensor
    """(n,) float32: Z of Eq. 3, -1..+1 within the cell of a source pixel."""

    def part(self, start: int, stop: int) -> Axis:
        """Those from start to stop."""
        return Axis(self.taps.part(start, stop), self.relative[start:stop])


def build_axis(
    n_in: int,
    n_out: int,
    start: int,
    stop: int,
    align: Alignment,
    device: torch.device | str = "cpu",
) -> Axis:
    """Eq. 3 along one axis, in whole numbers: frac(x Ws) in float32 often falls into the wrong cell.

    `align="paper"`: x = j / (Wt - 1), features with aligned corners. `align="centre"`: x at the centre
    of the output pixel for both, (j + 0.5) / Wt; low- and high-resolution pictures then cover the same
    area, as those that a resize makes do.
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
    return Axis(taps, (relative * 2 - 1).float().to(device))


def _cornered_taps(n_in: int, last: int, start: int, stop: int, device: torch.device) -> Taps:
    """Bilinear, where the first output lies on the first input and output `last` on the last."""
    j = torch.arange(start, stop, device=device)
    whole = torch.div(j * (n_in - 1), last, rounding_mode="floor")
    fraction = ((j * (n_in - 1)) % last).double().div(last).float()
    return compute_linear_taps(whole, fraction, n_in)


class CPM(nn.Module):
    """The head: 3x3 convolution to F_cs, then linear 258 -> 256 -> 256 -> 256 -> 3, ReLU between."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.fuse = conv3x3(inputs, hidden)
        self.linears = nn.ModuleList(
            [
                nn.Linear(hidden + 2, hidden),
                nn.Linear(hidden, hidden),
                nn.Linear(hidden, hidden),
                nn.Linear(hidden, 3),
            ]
        )

    def folded(self, features: Tensor) -> Tensor:
        """cat(F_tex, F_color) (B, 128, H, W) -> the feature part of the first linear layer.

        The weights are multiplied in float32. Returns (B, H, W, 256), contiguous.
        """
        first, fuse = cast(nn.Linear, self.linears[0]), self.fuse
        assert fuse.bias is not None
        with torch.autocast(features.device.type, enabled=False):
            matrix = first.weight[:, :-2].float()  # without the columns of the coordinates
            weight = torch.einsum("oc,cikl->oikl", matrix, fuse.weight.float())
            bias = matrix @ fuse.bias.float() + first.bias.float()
        weight = weight.to(features.dtype).contiguous(memory_format=torch.channels_last)
        hidden = F.conv2d(features, weight, bias.to(features.dtype), padding=1)
        return hidden.permute(0, 2, 3, 1).contiguous()

    def map(self, hidden: Tensor, rows: Axis, columns: Axis) -> Tensor:
        """The grid rows x columns of `hidden` (B, H, W, 256) -> planes (B, n, m, 3), float32."""
        if onednn_kernel.usable(self, hidden):
            return onednn_kernel.planes(self, hidden, rows, columns)
        plan = dispatch.plan(self, hidden)
        if plan is not None:
            from .triton_kernel import planes  # imports Triton

            return planes(self, hidden, rows, columns, plan).permute(0, 2, 3, 1)
        batch, height, width, channels = hidden.shape
        dtype = hidden.dtype
        # The last two columns of the first layer belong to Z, x before y; float32 until they are added.
        toward = cast(nn.Linear, self.linears[0]).weight[:, -2:].float()
        across = (columns.relative[:, None] * toward[:, 0]).to(dtype)  # (m, 256)
        down = (rows.relative[:, None] * toward[:, 1]).to(dtype)  # (n, 256)
        if rows.taps.identity(height) and columns.taps.identity(width):
            x = hidden + (down[:, None, :] + across)
        else:
            # In place, but for gradients: autograd copies whatever is changed through a view.
            plus = torch.add if hidden.requires_grad else Tensor.add_
            vertical = rows.taps.matrix(height, dtype)  # (n, H)
            horizontal = columns.taps.matrix(width, dtype)  # (m, W)
            x = vertical @ hidden.reshape(batch, height, width * channels)
            x = plus(x.view(batch, -1, width, channels), down[:, None, :])
            x = torch.matmul(horizontal, x).add_(across)  # (B, n, m, 256)
        shape = x.shape[:3]
        x = F.relu_(x).view(-1, channels)
        for linear in self.linears[1:-1]:
            x = F.relu_(linear(x))
        return self.linears[-1](x).float().view(*shape, -1)
