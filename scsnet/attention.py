"""Attention of the source picture to reference features: VCAttn, PVCAttn and BCAttn.

At each level d in {1, 2, 4} (Fig. 4, 5), with F_s and F_r average-pooled by d:

    Q = q(pre_s(F_s)),  K = k(pre_r(F_r)),  V = v(pre_r(F_r))
    CMat = softmax(scale * Q^T K) over the reference's positions,  F_r->s = V CMat^T
    (V1, V2) = sigmoid(valve(cat(F_s, F_r->s))),  F_t = V1 * F_s + V2 * F_r->s

The levels are upsampled, concatenated and mixed by one 1x1 convolution. Keys and values of several references are
concatenated along the positions, so that one softmax chooses among all of them.

Letters: B pictures, C = 256 channels, D = 64 query channels, h x w positions of a level of the source,
N positions of that level over all references.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .layers import conv3x3, upsample

LEVELS = (1, 2, 4)
MAX_MATRIX = (
    2**24
)  # entries of attention matrices up to which training on a CPU computes them explicitly


@dataclass(frozen=True)
class KeysValues:
    """Keys and values of the references at one level: computed once, used for every source picture."""

    key: Tensor
    """(B or 1, N, D), normalised to length 1 for cosine attention."""
    value: Tensor
    """(B or 1, N, C)."""
    grids: tuple[tuple[int, int], ...]
    """Height and width in positions of each reference; their areas add up to N."""


def pool(x: Tensor, factor: int) -> Tensor:
    """Average-pool (B, C, H, W) by a factor; incomplete cells at the lower and right border are averaged as they are."""
    if factor == 1:
        return x
    return F.avg_pool2d(x, factor, ceil_mode=True, count_include_pad=False)


def attend(query: Tensor, keys_values: KeysValues, scale: float) -> Tensor:
    """softmax(scale * Q K^T) V without the matrix in memory.

    (B, h w, D) x KeysValues -> (B, h w, C). In training on a CPU a small matrix is written out: the way back
    through the fused kernel takes ten times as long as that through two products.
    """
    heads = keys_values.value.shape[-1] // query.shape[-1]
    batch = query.shape[0]
    entries = batch * query.shape[1] * keys_values.key.shape[1]
    if query.requires_grad and query.device.type == "cpu" and entries <= MAX_MATRIX:
        matrix = torch.softmax(scale * (query @ keys_values.key.mT), dim=-1)
        return matrix.to(keys_values.value.dtype) @ keys_values.value
    # The fused kernels want values as narrow as queries: the values are cut into C / D slices, which
    # all share one query and one key. They also want channels last in memory.
    value = rearrange(keys_values.value.contiguous(), "b n (s d) -> b s n d", s=heads)
    q = query.contiguous()[:, None].expand(-1, heads, -1, -1)
    k = keys_values.key.contiguous()[:, None].expand(batch, heads, -1, -1)
    value = value.expand(batch, -1, -1, -1)
    out = F.scaled_dot_product_attention(q, k, value, scale=scale)
    return rearrange(out, "b s n d -> b n (s d)")


class VCAttn(nn.Module):
    """Valve cross attention at one level (Fig. 4); without valves it is the level of BCAttn."""

    def __init__(
        self, channels: int, factor: int, scale: float, cosine: bool, valves: bool = True
    ) -> None:
        super().__init__()
        narrow = channels // 4
        self.factor, self.scale, self.cosine = factor, scale, cosine
        self.pre_source = conv3x3(channels, channels)
        self.pre_reference = conv3x3(channels, channels)
        self.query = nn.Conv2d(channels, narrow, 1)
        self.key = nn.Conv2d(channels, narrow, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.valve = nn.Conv2d(2 * channels, 2, 1) if valves else None

    def compute_queries(self, pooled: Tensor) -> Tensor:
        """F_s of this level (B, C, h, w) -> Q (B, h w, D)."""
        q = rearrange(self.query(self.pre_source(pooled)), "b d h w -> b (h w) d")
        return F.normalize(q, dim=-1) if self.cosine else q

    def compute_keys_values(self, references: Sequence[Tensor]) -> KeysValues:
        """Compute keys and values from F_r of each reference, at full size [(B or 1, C, Hr/4, Wr/4)]."""
        keys, values, grids = [], [], []
        for reference in references:
            features = self.pre_reference(pool(reference, self.factor))
            keys.append(rearrange(self.key(features), "b d h w -> b (h w) d"))
            values.append(rearrange(self.value(features), "b c h w -> b (h w) c"))
            grids.append((features.shape[2], features.shape[3]))
        batch = max(k.shape[0] for k in keys)
        key = torch.cat([k.expand(batch, -1, -1) for k in keys], dim=1)
        value = torch.cat([v.expand(batch, -1, -1) for v in values], dim=1)
        return KeysValues(F.normalize(key, dim=-1) if self.cosine else key, value, tuple(grids))

    def aggregate(self, pooled: Tensor, keys_values: KeysValues) -> Tensor:
        """F_r->s (B, C, h, w) for F_s of this level (B, C, h, w)."""
        out = attend(self.compute_queries(pooled), keys_values, self.scale)
        return rearrange(out, "b (h w) c -> b c h w", h=pooled.shape[2])

    def compute_valves(self, pooled: Tensor, aggregated: Tensor) -> tuple[Tensor, Tensor]:
        """Compute V1 and V2, each (B, 1, h, w) in 0..1: the gates of F_s and of F_r->s."""
        if self.valve is None:
            raise ValueError('valves exist with attention="pyramid_valve" only')
        v1, v2 = torch.sigmoid(self.valve(torch.cat([pooled, aggregated], dim=1))).chunk(2, dim=1)
        return v1, v2

    def compute_rows(self, pooled: Tensor, keys_values: KeysValues, positions: Tensor) -> Tensor:
        """Compute rows of CMat, float32 (B, P, N), for positions (P,) counted row by row in h x w."""
        query = self.compute_queries(pooled)[:, positions].float()
        return torch.softmax(self.scale * query @ keys_values.key.float().mT, dim=-1)

    def forward(self, source: Tensor, keys_values: KeysValues) -> Tensor:
        """F_s (B, C, H/4, W/4) at full size -> F_t of this level (B, C, h, w)."""
        pooled = pool(source, self.factor)
        aggregated = self.aggregate(pooled, keys_values)
        if self.valve is None:
            return pooled + aggregated
        v1, v2 = self.compute_valves(pooled, aggregated)
        return v1 * pooled + v2 * aggregated


class PVCAttn(nn.Module):
    """Pyramid valve cross attention (Fig. 5): VCAttn at three levels, then one 1x1 convolution.

    With the source as its own reference it is SAttn of the extractor.
    """

    def __init__(self, channels: int, scale: float, cosine: bool) -> None:
        super().__init__()
        self.levels = nn.ModuleList(VCAttn(channels, d, scale, cosine) for d in LEVELS)
        self.post = nn.Conv2d(len(LEVELS) * channels, channels, 1)

    def compute_keys_values(self, references: Sequence[Tensor]) -> tuple[KeysValues, ...]:
        """Compute keys and values of every level from F_r of each reference."""
        return tuple(cast(VCAttn, level).compute_keys_values(references) for level in self.levels)

    def forward(self, source: Tensor, keys_values: Sequence[KeysValues]) -> Tensor:
        """F_s (B, C, H/4, W/4) and keys and values of every level -> F_int, the same shape."""
        height, width = source.shape[2:]
        levels = [
            upsample(level(source, pairs), cast(VCAttn, level).factor)[..., :height, :width]
            for level, pairs in zip(self.levels, keys_values, strict=True)
        ]
        return self.post(torch.cat(levels, dim=1))


class BCAttn(nn.Module):
    """Basic cross attention, the ablation of Table 5: one level, no valves, no pyramid."""

    def __init__(self, channels: int, scale: float, cosine: bool) -> None:
        super().__init__()
        self.levels = nn.ModuleList([VCAttn(channels, 1, scale, cosine, valves=False)])

    def compute_keys_values(self, references: Sequence[Tensor]) -> tuple[KeysValues, ...]:
        """F_r of each reference -> keys and values."""
        return (cast(VCAttn, self.levels[0]).compute_keys_values(references),)

    def forward(self, source: Tensor, keys_values: Sequence[KeysValues]) -> Tensor:
        """F_s + F_r->s, the shape of F_s."""
        (pairs,) = keys_values
        return self.levels[0](source, pairs)


class AddedReference(nn.Module):
    """No attention (the baseline of Table 5): F_int = F_s + mean over references of F_r, resized.

    It has no weights; the values are the features of the references themselves.
    """

    def compute_keys_values(self, references: Sequence[Tensor]) -> tuple[KeysValues, ...]:
        """Return F_r of each reference as values, without keys."""
        batch = max(r.shape[0] for r in references)
        flat = [rearrange(r, "b c h w -> b (h w) c").expand(batch, -1, -1) for r in references]
        value = torch.cat(flat, dim=1)
        grids = tuple((r.shape[2], r.shape[3]) for r in references)
        return (KeysValues(value[..., :0], value, grids),)

    def forward(self, source: Tensor, keys_values: Sequence[KeysValues]) -> Tensor:
        """F_s (B, C, h, w) + F_r brought to h x w, the shape of F_s."""
        (pairs,) = keys_values
        parts = torch.split(pairs.value, [h * w for h, w in pairs.grids], dim=1)
        total = source
        for part, (h, _) in zip(parts, pairs.grids, strict=True):
            planes = rearrange(part, "b (h w) c -> b c h w", h=h)
            resized = F.interpolate(planes, source.shape[2:], mode="bilinear")
            total = total + resized / len(parts)
        return total
