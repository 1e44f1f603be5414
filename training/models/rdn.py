"""RDN, the residual dense network for super-resolution (Table 6).

Zhang et al., "Residual Dense Network for Image Super-Resolution", CVPR 2018: D blocks of C layers, each of which adds G
channels to G0 channels. Its upsampler is `upscaling_heads.SubPixel`.
"""

from __future__ import annotations

from itertools import accumulate, repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config.upscaling import Sizes
from training.models.upscaling_heads import build_head


class ResidualDenseBlock(nn.Module):
    """Densely connected 3x3 convolutions, a 1x1 convolution over the outputs of all of them, and a skip connection."""

    def __init__(self, channels: int, layers: int, growth: int) -> None:
        super().__init__()
        *inputs, total = accumulate(repeat(growth, layers), initial=channels)
        self.layers = nn.ModuleList(nn.Conv2d(n, growth, 3, padding=1) for n in inputs)
        self.fuse = nn.Conv2d(total, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, G0, H, W) to the same shape."""
        features = x
        for layer in self.layers:
            features = torch.cat([features, F.relu(layer(features))], dim=1)
        return x + self.fuse(features)


class RDN(nn.Module):
    """RDN without an upsampler: two convolutions, D residual dense blocks, their fusion, and a global skip connection."""

    def __init__(self, channels: int, blocks: int, layers: int, growth: int) -> None:
        super().__init__()
        self.initial = nn.Conv2d(3, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            ResidualDenseBlock(channels, layers, growth) for _ in range(blocks)
        )
        self.fuse = nn.Sequential(
            nn.Conv2d(blocks * channels, channels, 1), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, rgb: Tensor) -> Tensor:
        """Map RGB (B, 3, H, W) to features (B, G0, H, W)."""
        initial = self.initial(rgb)
        outputs = [self.second(initial)]
        for block in self.blocks:
            outputs.append(block(outputs[-1]))
        return initial + self.fuse(torch.cat(outputs[1:], dim=1))


class Upscaler(nn.Module):
    """RDN with the head of a row. Equal seeds give RDN equal initial weights in all rows."""

    def __init__(self, row: str, sizes: Sizes, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = RDN(*sizes[:-1])
        self.head = build_head(row, sizes)

    def forward(self, rgb: Tensor, size: tuple[int, int]) -> Tensor:
        """Enlarge sRGB (B, 3, h, w), 0..1, to (B, 3, n, m), float32; not clipped."""
        planes: Tensor = self.head(self.body(rgb - 0.5), size)
        return planes.float() + 0.5
