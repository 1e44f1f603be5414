"""CPM on a CPU with oneDNN's fused operators: `CPM.map` in few passes over memory.

Interpolation along an axis is one matrix product: a row of weights for each output pixel, with Z as an additional
weight, times the features with the columns of Z appended. The axis being multiplied comes first in memory, so that one
product serves the whole block and includes the ReLU.

A block of output pixels (n, m) is stored as (m, n): the layers after the interpolation treat pixels independently.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import onednn
from .grid import Axis
from .parameters import Parameters

HIDDEN = 8 * 2**20
"""Bytes of hidden features per block; the output of a layer needs as much again. At 128 -> 512, half of it takes up to
15 % longer, twice as much twice as long."""


def is_usable(parameters: Parameters, hidden: Tensor) -> bool:
    """Return whether `map_pixels` supports these features."""
    return onednn.usable(hidden, parameters.layers[0].weight)


def _weights(axis: Axis, n_in: int, dtype: torch.dtype) -> Tensor:
    """Return (n, n_in + 1): the weight of each input pixel for each output pixel, then Z."""
    return torch.cat([axis.taps.matrix(n_in, dtype), axis.relative[:, None].to(dtype)], dim=1)


def map_pixels(parameters: Parameters, hidden: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Map the grid rows x columns of `hidden` (B, H, W, 256) to planes (B, n, m, 3), float32."""
    batch, _, _, channels = hidden.shape
    n, m = len(rows.relative), len(columns.relative)
    out = torch.empty(batch, 3, n, m)
    step = max(1, HIDDEN // (n * channels * hidden.element_size()))
    for picture in range(batch):
        lines = _interpolate_rows(parameters, hidden[picture], rows)
        for left in range(0, m, step):
            part = columns.part(left, min(left + step, m))
            first, last = part.taps.span()
            near = part._replace(taps=part.taps.shifted(first))
            lab = _map_columns(parameters, lines, near, first, last)
            out[picture, :, :, left : left + step] = lab.permute(2, 1, 0)
    return out.permute(0, 2, 3, 1)


def _interpolate_rows(parameters: Parameters, hidden: Tensor, rows: Axis) -> Tensor:
    """Interpolate along the height, (H, W, 256) -> (W, n, 256), and add the part of Z of the rows."""
    height, width, channels = hidden.shape
    down = parameters.coordinates[:, 1]
    above = torch.cat(
        [hidden.reshape(height, width * channels), down.repeat(width)[None]]
    )  # (H + 1, W 256)
    lines = _weights(rows, height, hidden.dtype) @ above
    return lines.view(-1, width, channels).transpose(0, 1)


def _map_columns(
    parameters: Parameters, lines: Tensor, columns: Axis, first: int, last: int
) -> Tensor:
    """Interpolate along the width from source columns first..last and apply the linear layers -> (m, n, 3)."""
    _, n, channels = lines.shape
    above = lines.new_empty(last - first + 1, n, channels)
    above[:-1] = lines[first:last]
    above[-1] = parameters.coordinates[:, 0]
    weights = _weights(columns, last - first, lines.dtype)
    x = onednn.product_relu(weights, above.view(-1, n * channels)).view(-1, channels)  # (m n, 256)
    second, third, fourth = parameters.layers
    x = onednn.linear(onednn.linear(x, *second, relu=True), *third, relu=True)
    return onednn.linear(x, *fourth, relu=False).view(-1, n, 3).float()
