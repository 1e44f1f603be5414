"""phi, the colorization branch: L and the references -> F_color (Fig. 3, Table 8).

It is global (attention, and instance norm where the config asks for it): never evaluate it in tiles.
Sides must be multiples of 4; the calling contract pads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .attention import AddedReference, BCAttn, KeysValues, PVCAttn, VCAttn, pool
from .config import SCSNetConfig
from .layers import ConvBlock, activate, channels_last, conv3x3, upsample
from .resample import STRIDE


class Encoder(nn.Module):
    """phi_E^s (1 plane, after the shared initial convolution) or phi_E^r (3 planes)."""

    def __init__(self, width: int, config: SCSNetConfig) -> None:
        super().__init__()
        n = config.norm
        self.norm = n
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
        """Raw first convolution (B, 64, H, W) -> F_s or F_r (B, 256, H/4, W/4)."""
        return self.blocks(activate(initial, self.norm))


class Extractor(nn.Module):
    """Three convolutions and SAttn, a pyramid of valve attention of the picture to itself."""

    def __init__(self, channels: int, config: SCSNetConfig) -> None:
        super().__init__()
        self.convs = nn.ModuleList(ConvBlock(channels, channels, config.norm) for _ in range(3))
        self.attention = PVCAttn(channels, config.attention_scale, config.cosine_attention)
        self.residual = config.residual

    def convolve(self, x: Tensor) -> Tensor:
        """F_int (B, 256, h, w) through the three convolutions, the same shape."""
        for conv in self.convs:
            x = x + conv(x) if self.residual else conv(x)
        return x

    def attend(self, x: Tensor) -> Tensor:
        """SAttn (B, 256, h, w), the same shape."""
        attended = self.attention(x, self.attention.compute_keys_values([x]))
        return x + attended if self.residual else attended

    def forward(self, x: Tensor) -> Tensor:
        """F_int (B, 256, h, w) -> the same shape."""
        return self.attend(self.convolve(x))


class Decoder(nn.Module):
    """phi_D: back to the source's size; UP is bilinear and has no parameters."""

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
        """(B, 256, h, w) -> F_color (B, 64, 4 h, 4 w)."""
        return self.at_full(upsample(self.at_half(upsample(x))))


def cross_attention(config: SCSNetConfig) -> PVCAttn | BCAttn | AddedReference:
    """The module that joins F_s and F_r, as the config names it."""
    channels = 4 * config.width
    if config.attention == "pyramid_valve":
        return PVCAttn(channels, config.attention_scale, config.cosine_attention)
    if config.attention == "basic":
        return BCAttn(channels, config.attention_scale, config.cosine_attention)
    return AddedReference()


class ColorBranch(nn.Module):
    """phi: encoders, cross attention, extractor, decoder."""

    def __init__(self, config: SCSNetConfig) -> None:
        super().__init__()
        width = config.width
        self.source_encoder = Encoder(width, config)
        self.reference_initial = conv3x3(3, width)
        self.reference_encoder = Encoder(width, config)
        self.cross_attention = cross_attention(config)
        self.extractor = Extractor(4 * width, config)
        self.decoder = Decoder(width, config)

    @property
    def only_reference(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """What the automatic mode never meets: phi_E^r, in two parts, and PVCAttn."""
        return self.reference_initial, self.reference_encoder, self.cross_attention

    def encode_reference(self, lab: Tensor) -> Tensor:
        """phi_E^r: reference LAB planes (B, 3, Hr, Wr) -> F_r (B, 256, Hr/4, Wr/4)."""
        return self.reference_encoder(channels_last(self.reference_initial(lab)))

    def aggregate(self, source: Tensor, keys_values: Sequence[KeysValues] | None) -> Tensor:
        """F_int: PVCAttn(F_s, F_r) with references, F_s itself without (Eq. 2)."""
        return source if keys_values is None else self.cross_attention(source, keys_values)

    def level(self, index: int) -> VCAttn:
        """The VCAttn of a pyramid level, counted from 0; ValueError where there is none."""
        if isinstance(self.cross_attention, AddedReference):
            raise ValueError('this network has attention="none": there are no attention maps')
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
        """Rows of CMat for points (x, y) in 0..1 of a picture seen at `shape`: per reference (B, P, h, w)."""
        attn = self.level(level)
        pooled = pool(source, attn.factor)
        height, width = pooled.shape[2:]
        cell = STRIDE * attn.factor
        rows = [min(height - 1, int(y * shape[0] / cell)) for _, y in points]
        columns = [min(width - 1, int(x * shape[1] / cell)) for x, _ in points]
        positions = [row * width + column for row, column in zip(rows, columns, strict=True)]
        index = torch.tensor(positions, device=source.device)
        pairs = keys_values[level]
        areas = [h * w for h, w in pairs.grids]
        flat = torch.split(attn.compute_rows(pooled, pairs, index), areas, dim=-1)
        # (B, P, h w) -> (B, P, h, w)
        return tuple(f.reshape(*f.shape[:2], *g) for f, g in zip(flat, pairs.grids, strict=True))

    def valves(
        self, source: Tensor, keys_values: Sequence[KeysValues], level: int
    ) -> tuple[Tensor, Tensor]:
        """V1, V2 of a level, each (B, 1, h, w) in 0..1."""
        attn = self.level(level)
        pooled = pool(source, attn.factor)
        return attn.compute_valves(pooled, attn.aggregate(pooled, keys_values[level]))

    def forward(self, source: Tensor, keys_values: Sequence[KeysValues] | None) -> Tensor:
        """F_s (B, 256, H/4, W/4) and the references' keys_values -> F_color (B, 64, H, W)."""
        return self.decoder(self.extractor(self.aggregate(source, keys_values)))
