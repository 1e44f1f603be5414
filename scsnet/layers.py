"""Building blocks with nothing of the paper in them: conv block, residual block, upsampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Norm

SLOPE = 0.2  # LeakyReLU of Table 8


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution, padding 1, bias; He initialisation for LeakyReLU 0.2, zero bias."""
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1)
    nn.init.kaiming_normal_(conv.weight, a=SLOPE)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def channels_last(x: Tensor) -> Tensor:
    """The layout in memory that convolutions are fastest in; all that follow keep it."""
    return x.contiguous(memory_format=torch.channels_last)


def activate(x: Tensor, norm: Norm, inplace: bool = False) -> Tensor:
    """[instance norm without affine], LeakyReLU 0.2; `inplace` where nobody else needs x."""
    if norm == "instance" and x.shape[-1] * x.shape[-2] > 1:
        x = F.instance_norm(x)
    return F.leaky_relu(x, SLOPE, inplace)


class ConvBlock(nn.Module):
    """conv 3x3, [IN], LReLU: the row that Table 8 is made of."""

    def __init__(self, inputs: int, outputs: int, norm: Norm, stride: int = 1) -> None:
        super().__init__()
        self.conv = conv3x3(inputs, outputs, stride)
        self.norm: Norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H/stride, W/stride)."""
        return activate(self.conv(x), self.norm, inplace=True)


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x))), the EDSR block: "Basic Block" of Table 8.

    The second convolution starts at zero, so an untrained chain of blocks is the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + self.conv2(F.relu_(self.conv1(x)))


def upsample(x: Tensor, factor: int = 2) -> Tensor:
    """UP of Table 8: bilinear, no parameters."""
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="bilinear")
