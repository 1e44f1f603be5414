"""CPM for a CPU: the same function as `CPM.map`, in as few passes over memory as PyTorch allows.

Interpolation along an axis is one product of matrices: a row of weights for each output pixel, with Z
as one weight more, on the features with the columns of Z below them. The axis being multiplied comes
first in memory, so that there is one product for the whole block rather than one for each row, and ReLU
happens in it.

A block of output pixels (n, m) is kept as (m, n): the layers after the interpolation see pixels, in
whatever order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from .. import onednn

if TYPE_CHECKING:
    from .head import CPM, Axis

HIDDEN = 8 * 2**20
"""Bytes of hidden features at a time; a layer's output takes as much again. Measured at 128 -> 512: half of it
costs up to 15 % more time; twice as much twice the time, as the buffers are then not kept (`onednn`)."""


def usable(head: CPM, hidden: Tensor) -> bool:
    """Whether `planes` can map these features."""
    return onednn.usable(hidden, cast(nn.Linear, head.linears[1]))


def _weights(axis: Axis, n_in: int, dtype: torch.dtype) -> Tensor:
    """(n, n_in + 1): what of each input makes an output, then Z."""
    return torch.cat([axis.taps.matrix(n_in, dtype), axis.relative[:, None].to(dtype)], dim=1)


def planes(head: CPM, hidden: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """The grid rows x columns of `hidden` (B, H, W, 256) -> planes (B, n, m, 3), float32."""
    batch, _, _, channels = hidden.shape
    n, m = len(rows.relative), len(columns.relative)
    out = torch.empty(batch, 3, n, m)
    step = max(1, HIDDEN // (n * channels * hidden.element_size()))
    for picture in range(batch):
        lines = _lines(head, hidden[picture], rows)
        for left in range(0, m, step):
            part = columns.part(left, min(left + step, m))
            first, last = part.taps.span()
            near = part._replace(taps=part.taps.shifted(first))
            lab = _columns(head, lines, near, first, last)
            out[picture, :, :, left : left + step] = lab.permute(2, 1, 0)
    return out.permute(0, 2, 3, 1)


def _lines(head: CPM, hidden: Tensor, rows: Axis) -> Tensor:
    """Interpolation down the picture: (H, W, 256) -> (W, n, 256), Z of the rows added."""
    height, width, channels = hidden.shape
    down = cast(nn.Linear, head.linears[0]).weight[:, -1]  # x before y
    above = torch.cat(
        [hidden.reshape(height, width * channels), down.repeat(width)[None]]
    )  # (H + 1, W 256)
    lines = _weights(rows, height, hidden.dtype) @ above
    return lines.view(-1, width, channels).transpose(0, 1)


def _columns(head: CPM, lines: Tensor, columns: Axis, first: int, last: int) -> Tensor:
    """Interpolation across from source columns first..last, and the linear layers -> (m, n, 3)."""
    _, n, channels = lines.shape
    across = cast(nn.Linear, head.linears[0]).weight[:, -2]
    above = lines.new_empty(last - first + 1, n, channels)
    above[:-1] = lines[first:last]
    above[-1] = across
    weights = _weights(columns, last - first, lines.dtype)
    x = onednn.product_relu(weights, above.view(-1, n * channels)).view(-1, channels)  # (m n, 256)
    _, second, third, fourth = (cast(nn.Linear, layer) for layer in head.linears)
    x = onednn.linear(onednn.linear(x, second, relu=True), third, relu=True)
    return onednn.linear(x, fourth, relu=False).view(-1, n, 3).float()
