"""A fixed x4 pixel-shuffle head, the baseline of CPM in the ablation of Table 5."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import conv3x3

FACTOR = 4


class PixelShuffle(nn.Module):
    """3x3 convolution to F_cs, ReLU, 3x3 convolution to 3 x 16 planes, pixel shuffle."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.fuse = conv3x3(inputs, hidden)
        self.out = conv3x3(hidden, 3 * FACTOR**2)

    def forward(self, features: Tensor) -> Tensor:
        """Map cat(F_tex, F_color) (B, 128, H, W) to planes (B, 3, 4 H, 4 W), float32."""
        return F.pixel_shuffle(self.out(F.relu(self.fuse(features))), FACTOR).float()
