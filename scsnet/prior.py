"""The semantic prior: what a gray picture shows, which colours are plausible there, and how the colour branch learns it.

EfficientNet-Lite (Tan and Le 2019), batch norm folded into its convolutions, sees the picture at about 256 x 256
pixels. A head on it predicts a distribution over a palette of colours at stride 16 (Zhang et al. 2016). 1x1
convolutions of its features and colours are added to F_s and F_r. Not part of the paper: the network has it where the
config says prior="efficientnet_lite2".
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .color import denormalize_lab, linear_to_srgb
from .config import SCSNetConfig
from .resample import resample_bicubic

COLORS = 154  # of the palette
HIDDEN = 448  # channels of the head
CELL = 32  # pixels: the sides of the prior's picture are multiples of it
CELLS = 64  # about so many of them in a picture: 256 x 256 pixels
TEMPERATURES = (1.0, 0.6)  # at which the mean colours are annealed that the colour branch gets
_MEAN, _DEVIATION = 127 / 255, 128 / 255  # of the published weights' input


class BlockStage(NamedTuple):
    """Inverted residual blocks of one width; the first of them has the stride."""

    width: int
    kernel: int
    blocks: int
    stride: int
    expansion: int = 6


class Architecture(NamedTuple):
    """Sizes of an EfficientNet-Lite without its classifier."""

    stem: int
    stages: tuple[BlockStage, ...]
    top: int


EFFICIENTNET_LITE2 = Architecture(
    stem=32,
    stages=(
        BlockStage(16, 3, 1, 1, 1),
        BlockStage(24, 3, 3, 2),
        BlockStage(48, 5, 3, 2),
        BlockStage(88, 3, 4, 2),
        BlockStage(120, 5, 4, 1),
        BlockStage(208, 5, 5, 2),
        BlockStage(352, 3, 1, 1),
    ),
    top=1280,
)


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: an odd pixel of padding is on the right or at the bottom."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution: (B, C, H, W) -> (B, D, ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride > 1:
            sides = []
            for n in (x.shape[3], x.shape[2]):
                missing = max((-(-n // stride) - 1) * stride + kernel - n, 0)
                sides += [missing // 2, missing - missing // 2]
            x = F.pad(x, sides)
        return super().forward(x)


class InvertedResidual(nn.Module):
    """Inverted residual block: expand, depthwise convolution, project; with a skip connection if the shapes are equal."""

    def __init__(self, inputs: int, stage: BlockStage, stride: int) -> None:
        super().__init__()
        inner = inputs * stage.expansion
        self.expand = SameConv(inputs, inner) if stage.expansion > 1 else None
        self.depthwise = SameConv(inner, inner, stage.kernel, stride, groups=inner)
        self.project = SameConv(inner, stage.width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (B, C, H, W) -> (B, D, H / stride, W / stride)."""
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return x + y if x.shape == y.shape else y


class EfficientNetLite(nn.Module):
    """The trunk of EfficientNet-Lite, without its classifier: features at strides 16 and 32."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.stem = SameConv(3, architecture.stem, 3, 2)
        blocks: list[InvertedResidual] = []
        width = architecture.stem
        for stage in architecture.stages:
            for n in range(stage.blocks):
                blocks.append(InvertedResidual(width, stage, stage.stride if n == 0 else 1))
                width = stage.width
        self.blocks = nn.ModuleList(blocks)
        self.top = SameConv(width, architecture.top)
        self.last_fine = sum(stage.blocks for stage in architecture.stages[:5]) - 1  # at stride 16
        self.channels = (architecture.stages[4].width, architecture.top)

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        """Encode gray (B, 1, H, W), sRGB in 0..1: features (B, c, H/16, W/16) and (B, C, H/32, W/32)."""
        x = ((gray - _MEAN) / _DEVIATION).expand(-1, 3, -1, -1)
        x = F.relu6(self.stem(x.contiguous(memory_format=torch.channels_last)), inplace=True)
        fine = x
        for n, block in enumerate(self.blocks):
            x = block(x)
            if n == self.last_fine:
                fine = x
        return fine, F.relu6(self.top(x))

    def dense_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that training fits to gray photos: all but those of the depthwise convolutions."""
        return [p for name, p in self.named_parameters() if "depthwise" not in name]


class PaletteHead(nn.Module):
    """Head that predicts logits over the palette from features at two strides and their position."""

    def __init__(self, fine: int, top: int) -> None:
        super().__init__()
        self.here = nn.Conv2d(fine + 2, HIDDEN, 1)
        self.meaning = nn.Conv2d(top, HIDDEN, 1, bias=False)
        self.everywhere = nn.Linear(top, HIDDEN)
        self.around = nn.ModuleList(
            nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1, groups=HIDDEN) for _ in range(2)
        )
        self.mixed = nn.ModuleList(nn.Conv2d(HIDDEN, HIDDEN, 1) for _ in range(2))
        self.classes = nn.Conv2d(HIDDEN, COLORS, 1)
        self.dropout = 0.0
        """Dropout probability in training mode; `train_prior.py` sets it."""

    def forward(self, fine: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, COLORS, h, w) and hidden features z (B, HIDDEN, h, w) of (B, c, h, w) and (B, C, h/2, w/2)."""
        batch, _, h, w = fine.shape
        y, x = (torch.linspace(-1, 1, n, device=fine.device, dtype=fine.dtype) for n in (h, w))
        place = torch.stack(torch.meshgrid(y, x, indexing="ij")).expand(batch, -1, -1, -1)
        fine, top = (F.dropout2d(features, self.dropout, self.training) for features in (fine, top))
        z = self.here(torch.cat([fine, place], 1))
        z = z + F.interpolate(self.meaning(top), (h, w), mode="bilinear")
        z = F.gelu(z + self.everywhere(top.mean((2, 3)))[..., None, None])
        for around, mixed in zip(self.around, self.mixed, strict=True):
            z = z + F.gelu(F.dropout(mixed(around(z)), self.dropout, self.training))
        return self.classes(z), z


class SemanticPrior(nn.Module):
    """EfficientNet-Lite and its head. `palette` (COLORS, 2): ab of the classes, CIE units."""

    palette: Tensor

    def __init__(self, architecture: Architecture = EFFICIENTNET_LITE2) -> None:
        super().__init__()
        self.features = EfficientNetLite(architecture)
        self.head = PaletteHead(*self.features.channels)
        self.register_buffer("palette", torch.zeros(COLORS, 2))

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, COLORS, H/16, W/16) and hidden features z (B, HIDDEN, H/16, W/16) of a gray picture.

        gray (B, 1, H, W): sRGB in 0..1, sides multiples of 32.
        """
        return self.head(*self.features(gray))

    def compute_mean_color(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """Return the annealed mean colour of logits (B, COLORS, h, w): ab (B, 2, h, w), CIE units, float32.

        A temperature below 1 prefers the likelier colours; at 1 it is what minimises squared errors.
        """
        probability = (logits.float() / temperature).softmax(1)
        return torch.einsum("bqhw,qc->bchw", probability, self.palette.float())


def lightness_to_gray(lightness: Tensor) -> Tensor:
    """Convert L* (B, 1, H, W) in 0..100 to the gray of that lightness, sRGB in 0..1."""
    f = (lightness.clamp(0, 100) + 16) / 116
    return linear_to_srgb(torch.where(f > 6 / 29, f**3, (f - 16 / 116) / 7.787)).clamp(0, 1)


def compute_prior_shape(height: int, width: int) -> tuple[int, int]:
    """Return the height and width at which the prior sees a picture: multiples of 32, about 256² pixels in all.

    The aspect ratio is kept up to rounding, smaller pictures are enlarged.
    """
    rows = round(sqrt(CELLS * height / width))
    columns = round(sqrt(CELLS * width / height))
    return CELL * min(max(rows, 1), CELLS), CELL * min(max(columns, 1), CELLS)


class SemanticGuidance(nn.Module):
    """The semantic prior with its projections P_s and P_r, whose outputs are added to F_s and F_r.

    Both projections start at zero: the network begins as it would be without the prior.
    """

    def __init__(self, channels: int, config: SCSNetConfig) -> None:
        super().__init__()
        self.config = config
        self.prior = SemanticPrior(EFFICIENTNET_LITE2)
        planes = HIDDEN + 2 * len(TEMPERATURES)
        self.source = nn.Conv2d(planes, channels, 1)  # P_s
        self.reference = nn.Conv2d(planes, channels, 1)  # P_r
        for projection in (self.source, self.reference):
            nn.init.zeros_(projection.weight)
            assert projection.bias is not None
            nn.init.zeros_(projection.bias)

    def describe(self, luminance: Tensor) -> Tensor:
        """Return the prior's features and mean colours of normalised L (B, 1, H, W): (B, HIDDEN + 4, h, w).

        The shape h x w is a sixteenth of `compute_prior_shape`. Values are about -10..10, larger than those of F_s, so
        that a step of Adam, which is of one size for all weights, changes the projections faster than the encoders.
        """
        gray = lightness_to_gray(denormalize_lab(luminance, self.config))
        gray = resample_bicubic(gray, compute_prior_shape(*gray.shape[2:])).clamp(0, 1)
        logits, z = self.prior(gray.to(self.source.weight.dtype))
        colors = [self.prior.compute_mean_color(logits, t) / 4 for t in TEMPERATURES]
        return torch.cat([2 * z, *(color.to(z.dtype) for color in colors)], dim=1)

    def guide_source(self, source: Tensor, luminance: Tensor) -> Tensor:
        """Return F_s (B, C, h, w) with the prior's knowledge of the picture, normalised L (B, 1, H, W) of any size."""
        return source + _enlarge(self.source(self.describe(luminance)), source)

    def guide_reference(self, reference: Tensor, luminance: Tensor) -> Tensor:
        """Return F_r (B, C, h, w) with the prior's knowledge of the reference, as in `guide_source`."""
        return reference + _enlarge(self.reference(self.describe(luminance)), reference)


def _enlarge(planes: Tensor, like: Tensor) -> Tensor:
    resized = F.interpolate(planes, like.shape[2:], mode="bilinear")
    return resized.contiguous(memory_format=torch.channels_last)
