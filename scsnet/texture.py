"""psi_E, the texture encoder of the super-resolution branch: F_init -> F_tex (Table 8).

It has no norm and a receptive field of `TextureEncoder.radius` pixels to each side, so it can be evaluated in tiles with
that margin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from . import onednn
from .layers import ResidualBlock, channels_last
from .tiling import Window

TILE = 512  # side of a tile in source pixels; the margin adds 28 %


class TextureEncoder(nn.Module):
    """psi_E: `depth` residual blocks at full size."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(depth)))

    @property
    def radius(self) -> int:
        """Receptive field to each side, in pixels."""
        return 2 * len(self.blocks)

    def forward(self, initial: Tensor) -> Tensor:
        """Return F_tex (B, 64, H, W) of F_init (B, 64, H, W)."""
        blocks = [cast(ResidualBlock, block) for block in self.blocks]
        # One row or column has the strides of both layouts; PyTorch then adds by an operator that lacks bfloat16.
        narrow = min(initial.shape[2:]) < 2
        if not blocks or narrow or not onednn.usable(initial, blocks[0].conv1.weight):
            return self.blocks(initial)
        x, between = initial.clone(), torch.empty_like(initial)
        for block in blocks:
            block.add_to(x, between)
        return x


def encode_texture_window(
    initial: nn.Conv2d, encoder: TextureEncoder, luminance: Tensor, window: Window
) -> Tensor:
    """Return F_tex (B, 64, height, width) of a window of L (B, 1, Hs, Ws), equal to that part of the whole."""
    height, width = luminance.shape[2:]
    margin = encoder.radius + 1  # psi_E and the initial convolution
    top, left = max(0, window.top - margin), max(0, window.left - margin)
    bottom, right = min(height, window.bottom + margin), min(width, window.right + margin)
    part = luminance[..., top:bottom, left:right].to(initial.weight.dtype)
    rows = slice(window.top - top, window.bottom - top)
    return encoder(channels_last(initial(channels_last(part))))[
        ..., rows, window.left - left : window.right - left
    ]


def encode_texture(
    initial: nn.Conv2d,
    encoder: TextureEncoder,
    luminance: Tensor,
    tile: int = TILE,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return F_tex (B, 64, Hs, Ws) of L (B, 1, Hs, Ws), computed tile by tile to bound memory."""
    batch, _, height, width = luminance.shape
    tiles = list(Window(0, 0, height, width).blocks(tile, tile))
    if len(tiles) == 1:
        return encode_texture_window(initial, encoder, luminance, tiles[0])
    whole = torch.empty(
        (batch, initial.out_channels, height, width),
        dtype=initial.weight.dtype,
        device=luminance.device,
        memory_format=torch.channels_last,
    )
    for done, window in enumerate(tiles, 1):
        part = encode_texture_window(initial, encoder, luminance, window)
        whole[..., window.top : window.bottom, window.left : window.right] = part
        if progress is not None:
            progress(done, len(tiles))
    return whole
