"""phi, the colorization branch: L and the references -> F_color (Fig. 3, Table 8).

It is global (attention, and instance norm if configured), so it cannot be evaluated in tiles. Sides must be multiples
of 4: `SCSNet.encode` pads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .attention import AddedReference, BCAttn, KeysValues, PVCAttn, VCAttn, pool
from .config import SCSNetConfig
from .layers import ConvBlock, activate, channels_last, conv3x3, upsample
from .prior import SemanticGuidance
from .resample import STRIDE

MATCH = (0.4, 0.8)
"""Similarity of query and attended keys at D1 from which on, and up to which, a place counts as found in the references.

Means over a photo, bundled weights: 0.73 to 0.79 for its distorted copy, 0.35 to 0.57 for another photo as the reference.
"""


class Encoder(nn.Module):
    """phi_E^s (1 plane, after the shared initial convolution) or phi_E^r (3 planes)."""

    def __init__(self, width: int, config: SCSNetConfig) -> None:
        super().__init__()
        self.norm = n = config.norm
        self.blocks = nn.Sequential(
            ConvBlock(width, width, n),
            ConvBlock(width, width, n),
            ConvBlock(width, width, n, stride=2),
            ConvBlock(width, 2 * width, n),
            ConvBlock(2 * width, 2 * width, n),
            ConvBlock(2 * width, 2 * width, n, stride=2),
            ConvBlock(2 * width, 4 * width, n),
            ConvBlock(4 * width, 4 * width, n),
        )

    def forward(self, initial: Tensor) -> Tensor:
        """Return F_s or F_r (B, 256, H/4, W/4) of the initial convolution's output (B, 64, H, W)."""
        return self.blocks(activate(initial, self.norm))


class Extractor(nn.Module):
    """Three convolutions and SAttn, the pyramid valve attention of the picture to itself."""

    def __init__(self, channels: int, config: SCSNetConfig) -> None:
        super().__init__()
        self.convs = nn.ModuleList(ConvBlock(channels, channels, config.norm) for _ in range(3))
        self.attention = PVCAttn(channels, config.attention_scale, config.cosine_attention)
        self.residual = config.residual

    def convolve(self, x: Tensor) -> Tensor:
        """Apply the three convolutions to F_int (B, 256, h, w); the shape stays."""
        for conv in self.convs:
            x = x + conv(x) if self.residual else conv(x)
        return x

    def attend(self, x: Tensor) -> Tensor:
        """Apply SAttn to (B, 256, h, w); the shape stays."""
        attended = self.attention(x, self.attention.compute_keys_values([x]))
        return x + attended if self.residual else attended

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolutions and SAttn to F_int (B, 256, h, w); the shape stays."""
        return self.attend(self.convolve(x))


class Decoder(nn.Module):
    """phi_D: two bilinear upsamplings, each followed by two convolutions."""

    def __init__(self, width: int, config: SCSNetConfig) -> None:
        super().__init__()
        self.at_half = nn.Sequential(
            ConvBlock(4 * width, 4 * width, config.norm),
            ConvBlock(4 * width, 2 * width, config.norm),
        )
        self.at_full = nn.Sequential(
            ConvBlock(2 * width, 2 * width, config.norm), ConvBlock(2 * width, width, config.norm)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return F_color (B, 64, 4 h, 4 w) of the extractor's output (B, 256, h, w)."""
        return self.at_full(upsample(self.at_half(upsample(x))))


def build_cross_attention(config: SCSNetConfig) -> PVCAttn | BCAttn | AddedReference:
    """Return the module that combines F_s and F_r, by `config.attention`."""
    channels = 4 * config.width
    if config.attention == "pyramid_valve":
        return PVCAttn(channels, config.attention_scale, config.cosine_attention)
    if config.attention == "basic":
        return BCAttn(channels, config.attention_scale, config.cosine_attention)
    return AddedReference()


class ColorBranch(nn.Module):
    """phi: encoders, cross attention, extractor, decoder, and the semantic prior if configured."""

    def __init__(self, config: SCSNetConfig) -> None:
        super().__init__()
        width = config.width
        self.source_encoder = Encoder(width, config)
        self.reference_initial = conv3x3(3, width)
        self.reference_encoder = Encoder(width, config)
        self.cross_attention = build_cross_attention(config)
        self.extractor = Extractor(4 * width, config)
        self.decoder = Decoder(width, config)
        has_prior = config.prior != "none"
        self.guidance = SemanticGuidance(4 * width, config) if has_prior else None

    @property
    def only_reference(self) -> tuple[nn.Module, ...]:
        """Modules that only references use: phi_E^r, in two parts, the cross attention, and P_r if there is a prior."""
        modules = (self.reference_initial, self.reference_encoder, self.cross_attention)
        return modules if self.guidance is None else (*modules, self.guidance.reference)

    def encode_source(self, initial: Tensor, luminance: Tensor) -> Tensor:
        """Return F_s (B, 256, H/4, W/4) of F_init (B, 64, H, W).

        `luminance`, normalised L of the same picture at any size (B, 1, H', W'), is what the prior sees.
        """
        source = self.source_encoder(initial)
        return source if self.guidance is None else self.guidance.guide_source(source, luminance)

    def encode_reference(self, lab: Tensor) -> Tensor:
        """Return F_r (B, 256, Hr/4, Wr/4) of normalised LAB planes (B, 3, Hr, Wr)."""
        planes = lab.to(self.reference_initial.weight.dtype)
        reference = self.reference_encoder(channels_last(self.reference_initial(planes)))
        if self.guidance is None:
            return reference
        return self.guidance.guide_reference(reference, lab[:, :1])

    def aggregate(self, source: Tensor, keys_values: Sequence[KeysValues] | None) -> Tensor:
        """Return F_int: PVCAttn(F_s, F_r) with references, F_s itself without (Eq. 2)."""
        return source if keys_values is None else self.cross_attention(source, keys_values)

    def level(self, index: int) -> VCAttn:
        """Return the VCAttn of a pyramid level, counted from 0. Raises ValueError if there is none."""
        if isinstance(self.cross_attention, AddedReference):
            raise ValueError(
                'expected a network with attention: attention="none" has no attention maps'
            )
        levels = self.cross_attention.levels
        if not 0 <= index < len(levels):
            raise ValueError(f"level must be between 0 and {len(levels) - 1}, got {index}")
        return cast(VCAttn, levels[index])

    def attention(
        self,
        source: Tensor,
        keys_values: Sequence[KeysValues],
        points: Sequence[tuple[float, float]],
        shape: tuple[int, int],
        level: int,
    ) -> tuple[Tensor, ...]:
        """Return rows of CMat, per reference (B, P, h, w), for points (x, y) in 0..1.

        `shape` is the height and width of the picture at the working size, without padding.
        """
        attn = self.level(level)
        pooled = pool(source, attn.factor)
        height, width = pooled.shape[2:]
        cell = STRIDE * attn.factor
        rows = [min(height - 1, int(y * shape[0] / cell)) for _, y in points]
        columns = [min(width - 1, int(x * shape[1] / cell)) for x, _ in points]
        positions = [row * width + column for row, column in zip(rows, columns, strict=True)]
        index = torch.tensor(positions, device=source.device)
        kv = keys_values[level]
        areas = [h * w for h, w in kv.grids]
        flat = torch.split(attn.compute_rows(pooled, kv, index), areas, dim=-1)
        # (B, P, h w) -> (B, P, h, w)
        return tuple(f.reshape(*f.shape[:2], *g) for f, g in zip(flat, kv.grids, strict=True))

    def valves(
        self, source: Tensor, keys_values: Sequence[KeysValues], level: int
    ) -> tuple[Tensor, Tensor]:
        """Return V1 and V2 of a level, each (B, 1, h, w) in 0..1."""
        attn = self.level(level)
        pooled = pool(source, attn.factor)
        return attn.compute_valves(pooled, attn.aggregate(pooled, keys_values[level]))

    def coverage(self, source: Tensor, keys_values: Sequence[KeysValues]) -> Tensor:
        """Return how much of each position's colours comes from each reference, (B, R, h, w) of F_s, float32 in 0..1.

        That is the share of the reference in the row of CMat, times whether something similar was found there, times how
        much of the references passes: V2, the mean over the levels (1 without valves). Similarity and shares are those of D1:
        with the bundled weights coarser levels are as similar to other photos as to copies. How concentrated the row is
        would not tell: a sky attends to all of another sky.
        """
        height, width = source.shape[2:]
        similarity, shares = self.level(0).compare(source, keys_values[0])
        low, high = MATCH
        covered = ((similarity - low) / (high - low)).clamp(0, 1)
        if self.level(0).valve is not None:
            gates = [
                upsample(
                    self.valves(source, keys_values, level)[1].float(), self.level(level).factor
                )[..., :height, :width]
                for level in range(len(keys_values))
            ]
            covered = covered * torch.stack(gates).mean(0)
        return covered * shares

    def forward(self, source: Tensor, keys_values: Sequence[KeysValues] | None) -> Tensor:
        """Return F_color (B, 64, H, W) of F_s (B, 256, H/4, W/4) and the references' keys and values."""
        return self.decoder(self.extractor(self.aggregate(source, keys_values)))
