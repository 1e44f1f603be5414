"""psi_E, the texture encoder of the super-resolution branch: F_init -> F_tex (Table 8).

It has no norm and sees `TextureEncoder.radius` pixels to each side, so it may be evaluated in tiles
with that much margin.
"""

from __future__ import annotations

from torch import Tensor, nn

from .layers import ResidualBlock


class TextureEncoder(nn.Module):
    """psi_E: `depth` residual blocks conv-ReLU-conv + skip at full size."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(depth)))

    @property
    def radius(self) -> int:
        """How many pixels to each side an output depends on."""
        return 2 * len(self.blocks)

    def forward(self, initial: Tensor) -> Tensor:
        """F_init (B, 64, H, W) -> F_tex (B, 64, H, W)."""
        return self.blocks(initial)
