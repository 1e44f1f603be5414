"""Discriminator of the adversarial loss: 70x70 PatchGAN of pix2pix with spectral norm. The paper does not give its own."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

SMALLEST = 32  # pixels: smaller pictures have no output after all five convolutions


class Discriminator(nn.Module):
    """Scores patches of 70 x 70 pixels of normalised LAB. `width`: channels of the first layer; LeakyReLU 0.2."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        plan = [(3, width, 2), (width, 2 * width, 2), (2 * width, 4 * width, 2)]
        plan += [(4 * width, 8 * width, 1), (8 * width, 1, 1)]
        convs = (nn.Conv2d(inputs, outputs, 4, stride, 1) for inputs, outputs, stride in plan)
        self.convs = nn.ModuleList(map(spectral_norm, convs))

    def forward(self, lab: Tensor) -> Tensor:
        """Map (B, 3, H, W) to scores (B, 1, about H/8, about W/8), float32. Raises ValueError below 32 x 32 pixels."""
        if min(lab.shape[2:]) < SMALLEST:
            size = tuple(lab.shape[2:])
            raise ValueError(f"expected at least {SMALLEST} x {SMALLEST} pixels, got {size}")
        x = lab
        for conv in self.convs[:-1]:
            x = F.leaky_relu(conv(x), 0.2)
        return self.convs[-1](x).float()
