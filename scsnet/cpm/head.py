"""CPM, continuous pixel mapping: features and a grid of output pixels -> LAB planes (Eq. 3, Fig. 6).

Every output pixel takes the features F_cs around it by bilinear interpolation and its coordinate Z relative to the cell
of the source pixel that contains it, -1..+1, and maps both through four linear layers. Two identities make this fast
without changing the result beyond rounding:

- The first linear layer commutes with bilinear interpolation, and the 3x3 convolution that computes F_cs has no
  activation: both are one 3x3 convolution at source size (`fold_first_layer`).
- Interpolation over a grid is separable: two small matrix products instead of a gather.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import conv3x3
from . import dispatch, onednn_kernel
from .grid import Axis
from .parameters import Linear, Parameters

BLOCK = (64, 256)  # output pixels mapped at a time: 8 MiB of hidden features in bfloat16
FUSED_BLOCK = (1024, 1024)  # the same for the Triton kernel, which keeps no hidden features
FLOAT32_BEYOND = 64
"""Magnification beyond which CPM is computed in float32: there, neighbouring output pixels differ by less than
bfloat16 resolves, in interpolation weights, hidden features and planes."""


def needs_float32(dtype: torch.dtype, magnification: float) -> bool:
    """Return whether features of `dtype` are converted to float32 before they are mapped."""
    return dtype != torch.float32 and magnification > FLOAT32_BEYOND


class CPM(nn.Module):
    """3x3 convolution to F_cs, then linear layers 258 -> 256 -> 256 -> 256 -> 3 with ReLU between (Table 8)."""

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

    @property
    def parameters_of_map(self) -> Parameters:
        """Weights that `map` needs beside the folded first layer."""
        first, *layers = (cast(nn.Linear, layer) for layer in self.linears)
        return Parameters(first.weight[:, -2:], tuple(Linear(m.weight, m.bias) for m in layers))

    def block_size(self, features: Tensor, magnification: float) -> tuple[int, int]:
        """Return the height and width of the blocks of output pixels to map at a time."""
        if needs_float32(features.dtype, magnification):
            return BLOCK
        plan = dispatch.choose_plan(self.parameters_of_map, features)
        return BLOCK if plan is None else FUSED_BLOCK

    def fold_first_layer(self, features: Tensor) -> Tensor:
        """Apply the 3x3 convolution and the feature part of the first linear layer, as one convolution.

        cat(F_tex, F_color) (B, 128, H, W) -> (B, H, W, 256), contiguous. The weights are multiplied in float32.
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
        """Map the grid rows x columns of `hidden` (B, H, W, 256) to planes (B, n, m, 3), float32."""
        parameters = self.parameters_of_map
        if needs_float32(hidden.dtype, max(rows.magnification, columns.magnification)):
            parameters, hidden = parameters.to(torch.float32), hidden.float()
        if onednn_kernel.is_usable(parameters, hidden):
            return onednn_kernel.map_pixels(parameters, hidden, rows, columns)
        plan = dispatch.choose_plan(parameters, hidden)
        if plan is not None:
            from .triton_kernel import map_pixels  # imports Triton

            planes = map_pixels(parameters, hidden, rows, columns, plan)
            return planes.permute(0, 2, 3, 1)
        batch, height, width, channels = hidden.shape
        dtype = hidden.dtype
        coordinates = parameters.coordinates.float()
        across = (columns.relative[:, None] * coordinates[:, 0]).to(dtype)  # (m, 256)
        down = (rows.relative[:, None] * coordinates[:, 1]).to(dtype)  # (n, 256)
        if rows.taps.identity(height) and columns.taps.identity(width):
            x = hidden + (down[:, None, :] + across)
        else:
            # In place unless gradients are needed: autograd copies what is changed through a view.
            add = torch.add if hidden.requires_grad else Tensor.add_
            vertical = rows.taps.matrix(height, dtype)  # (n, H)
            horizontal = columns.taps.matrix(width, dtype)  # (m, W)
            x = vertical @ hidden.reshape(batch, height, width * channels)
            x = add(x.view(batch, -1, width, channels), down[:, None, :])
            x = torch.matmul(horizontal, x).add_(across)  # (B, n, m, 256)
        shape = x.shape[:3]
        x = F.relu_(x).view(-1, channels)
        for layer in parameters.layers[:-1]:
            x = F.relu_(F.linear(x, *layer))
        return F.linear(x, *parameters.layers[-1]).float().view(*shape, -1)
