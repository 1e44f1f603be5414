"""VCAttn, PVCAttn and BCAttn: how the source picture selects among the reference's features.

At each level d in {1, 2, 4} (Fig. 4, 5), with F_s and F_r average-pooled by d:

    Q = q(pre_s(F_s)),  K = k(pre_r(F_r)),  V = v(pre_r(F_r))
    CMat = softmax(scale * Q^T K) over the reference's positions,  F_r->s = V CMat^T
    (V1, V2) = sigmoid(valve(cat(F_s, F_r->s))),  F_t = V1 * F_s + V2 * F_r->s

The levels are upsampled, concatenated and mixed by one 1x1 convolution. Keys and values of several references are
concatenated along their positions, so that one softmax covers all references.

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
)  # of a batch; up to this size training on a CPU materialises the attention matrix


@dataclass(frozen=True)
class KeysValues:
    """Keys and values of the references at one level: computed once, used for every source picture."""

    key: Tensor
    """(B or 1, N, D), of unit length for cosine attention."""
    value: Tensor
    """(B or 1, N, C)."""
    grids: tuple[tuple[int, int], ...]
    """Height and width in positions of each reference; their areas add up to N."""
    mask: Tensor | None = None
    """(B or 1, N), bool: true where a position may be attended to; None: everywhere."""


def pool(x: Tensor, factor: int) -> Tensor:
    """Average-pool (B, C, h, w) by `factor`; windows cut by the lower or right border average fewer pixels."""
    if factor == 1:
        return x
    return F.avg_pool2d(x, factor, ceil_mode=True, count_include_pad=False)


def mask_scores(scores: Tensor, kv: KeysValues) -> Tensor:
    """Return scores (B, P, N) with -inf at the positions that the mask leaves out."""
    return scores if kv.mask is None else scores.masked_fill(~kv.mask[:, None], -torch.inf)


def attend(query: Tensor, kv: KeysValues, scale: float) -> Tensor:
    """Compute softmax(scale * Q K^T) V without the matrix in memory: (B, h w, D) -> (B, h w, C).

    Query, keys and values have one dtype, which the result has too; the kernels accumulate in float32. In training on
    a CPU a small matrix is materialised, in the dtype of the query: the backward pass of the fused kernel takes ten
    times as long as that of two matrix products.
    """
    heads = kv.value.shape[-1] // query.shape[-1]
    batch = query.shape[0]
    entries = batch * query.shape[1] * kv.key.shape[1]
    if query.requires_grad and query.device.type == "cpu" and entries <= MAX_MATRIX:
        matrix = torch.softmax(mask_scores(scale * (query @ kv.key.mT), kv), dim=-1)
        return matrix.to(kv.value.dtype) @ kv.value
    # The fused kernels expect values as narrow as queries, contiguous along channels: the values are split into C / D
    # heads, which share one query and one key.
    value = rearrange(kv.value.contiguous(), "b n (s d) -> b s n d", s=heads)
    q = query.contiguous()[:, None].expand(-1, heads, -1, -1)
    k = kv.key.contiguous()[:, None].expand(batch, heads, -1, -1)
    value = value.expand(batch, -1, -1, -1)
    mask = None if kv.mask is None else kv.mask[:, None, None].expand(batch, 1, q.shape[2], -1)
    out = F.scaled_dot_product_attention(q, k, value, attn_mask=mask, scale=scale)
    return rearrange(out, "b s n d -> b n (s d)")


def flatten_masks(
    masks: Sequence[Tensor | None],
    grids: Sequence[tuple[int, int]],
    batch: int,
    factor: int,
    device: torch.device,
) -> Tensor:
    """Return masks of F_r, each (B or 1, 1, Hr/4, Wr/4), for the positions of a level pooled by `factor`: (batch, N), bool.

    A position is marked if any of its pixels is.
    """
    flat = []
    for mask, (h, w) in zip(masks, grids, strict=True):
        if mask is None:
            flat.append(torch.ones(batch, h * w, dtype=torch.bool, device=device))
        else:
            pooled = F.max_pool2d(mask.float(), factor, ceil_mode=True) > 0
            flat.append(pooled.flatten(1).expand(batch, -1))
    return torch.cat(flat, dim=1)


class VCAttn(nn.Module):
    """Valve cross attention at one level (Fig. 4); without valves, the attention of BCAttn."""

    def __init__(
        self, channels: int, factor: int, scale: float, cosine: bool, valves: bool = True
    ) -> None:
        super().__init__()
        query_channels = channels // 4
        self.factor, self.scale, self.cosine = factor, scale, cosine
        self.pre_source = conv3x3(channels, channels)
        self.pre_reference = conv3x3(channels, channels)
        self.query = nn.Conv2d(channels, query_channels, 1)
        self.key = nn.Conv2d(channels, query_channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.valve = nn.Conv2d(2 * channels, 2, 1) if valves else None

    def compute_queries(self, pooled: Tensor) -> Tensor:
        """Return Q (B, h w, D) of F_s at this level (B, C, h, w)."""
        q = rearrange(self.query(self.pre_source(pooled)), "b d h w -> b (h w) d")
        return F.normalize(q, dim=-1) if self.cosine else q

    def compute_keys_values(
        self, references: Sequence[Tensor], masks: Sequence[Tensor | None] = ()
    ) -> KeysValues:
        """Return keys and values of the references' F_r, each (B or 1, C, Hr/4, Wr/4), not pooled.

        `masks`, one per reference, are (B or 1, 1, Hr/4, Wr/4), 1 where a reference may be attended to, or None.
        """
        keys, values, grids = [], [], []
        for reference in references:
            features = self.pre_reference(pool(reference, self.factor))
            keys.append(rearrange(self.key(features), "b d h w -> b (h w) d"))
            values.append(rearrange(self.value(features), "b c h w -> b (h w) c"))
            grids.append((features.shape[2], features.shape[3]))
        batch = max(k.shape[0] for k in keys)
        key = torch.cat([k.expand(batch, -1, -1) for k in keys], dim=1)
        value = torch.cat([v.expand(batch, -1, -1) for v in values], dim=1)
        mask = None
        if any(m is not None for m in masks):
            mask = flatten_masks(masks, grids, batch, self.factor, key.device)
        key = F.normalize(key, dim=-1) if self.cosine else key
        return KeysValues(key, value, tuple(grids), mask)

    def aggregate(self, pooled: Tensor, kv: KeysValues) -> Tensor:
        """Return F_r->s (B, C, h, w) for F_s at this level (B, C, h, w)."""
        out = attend(self.compute_queries(pooled), kv, self.scale)
        return rearrange(out, "b (h w) c -> b c h w", h=pooled.shape[2])

    def compute_valves(self, pooled: Tensor, aggregated: Tensor) -> tuple[Tensor, Tensor]:
        """Return V1 and V2, each (B, 1, h, w) in 0..1: the gates of F_s and of F_r->s."""
        if self.valve is None:
            raise ValueError(
                'expected a network with attention="pyramid_valve": others have no valves'
            )
        v1, v2 = torch.sigmoid(self.valve(torch.cat([pooled, aggregated], dim=1))).chunk(2, dim=1)
        return v1, v2

    def compute_rows(self, pooled: Tensor, kv: KeysValues, positions: Tensor) -> Tensor:
        """Return rows of CMat, float32 (B, P, N), at positions (P,) of h x w in row-major order."""
        query = self.compute_queries(pooled)[:, positions].float()
        scores = mask_scores(self.scale * query @ kv.key.float().mT, kv)
        return torch.softmax(scores, dim=-1)

    def compare(self, pooled: Tensor, kv: KeysValues) -> tuple[Tensor, Tensor]:
        """Return how similar each position is to what it attends to, and to which reference it attends; float32.

        The similarity (B, 1, h, w), -1..1, is the mean cosine of query and key, weighted by the row of CMat; the shares
        (B, R, h, w) of R references sum to 1. Like `aggregate`, without the matrix in memory.
        """
        query, key = self.compute_queries(pooled).float(), kv.key.float()
        # `attend` needs values as wide as a multiple of the queries: the keys, then one column per reference.
        areas = torch.tensor([h * w for h, w in kv.grids], device=key.device)
        number = torch.arange(len(kv.grids), device=key.device).repeat_interleave(areas)
        columns = -(-len(kv.grids) // key.shape[2]) * key.shape[2]
        belongs = F.one_hot(number, columns).float().expand(key.shape[0], -1, -1)
        value = torch.cat([F.normalize(key, dim=-1), belongs], dim=2)
        out = attend(query, KeysValues(key, value, kv.grids, kv.mask), self.scale)
        similarity = (F.normalize(query, dim=-1) * out[..., : key.shape[2]]).sum(-1, keepdim=True)
        shares = out[..., key.shape[2] : key.shape[2] + len(kv.grids)]
        maps = [
            rearrange(m, "b (h w) c -> b c h w", h=pooled.shape[2]) for m in (similarity, shares)
        ]
        return maps[0], maps[1]

    def forward(self, source: Tensor, kv: KeysValues) -> Tensor:
        """Return F_t at this level (B, C, h, w) of F_s (B, C, H/4, W/4), not pooled."""
        pooled = pool(source, self.factor)
        aggregated = self.aggregate(pooled, kv)
        if self.valve is None:
            return pooled + aggregated
        v1, v2 = self.compute_valves(pooled, aggregated)
        return v1 * pooled + v2 * aggregated


class PVCAttn(nn.Module):
    """Pyramid valve cross attention (Fig. 5): VCAttn at three levels, then one 1x1 convolution.

    With the source as its own reference this is SAttn of the extractor.
    """

    def __init__(self, channels: int, scale: float, cosine: bool) -> None:
        super().__init__()
        self.levels = nn.ModuleList(VCAttn(channels, d, scale, cosine) for d in LEVELS)
        self.post = nn.Conv2d(len(LEVELS) * channels, channels, 1)

    def compute_keys_values(
        self, references: Sequence[Tensor], masks: Sequence[Tensor | None] = ()
    ) -> tuple[KeysValues, ...]:
        """Return keys and values of the references' F_r, one per level; masks as for `VCAttn`."""
        levels = [cast(VCAttn, level) for level in self.levels]
        return tuple(level.compute_keys_values(references, masks) for level in levels)

    def forward(self, source: Tensor, keys_values: Sequence[KeysValues]) -> Tensor:
        """Return F_int, of the shape of F_s (B, C, H/4, W/4)."""
        height, width = source.shape[2:]
        levels = [
            upsample(level(source, kv), cast(VCAttn, level).factor)[..., :height, :width]
            for level, kv in zip(self.levels, keys_values, strict=True)
        ]
        return self.post(torch.cat(levels, dim=1))


class BCAttn(nn.Module):
    """Basic cross attention, the ablation of Table 5: one level, no valves, no pyramid."""

    def __init__(self, channels: int, scale: float, cosine: bool) -> None:
        super().__init__()
        self.levels = nn.ModuleList([VCAttn(channels, 1, scale, cosine, valves=False)])

    def compute_keys_values(
        self, references: Sequence[Tensor], masks: Sequence[Tensor | None] = ()
    ) -> tuple[KeysValues, ...]:
        """Return keys and values of the references' F_r, for the only level; masks as for `VCAttn`."""
        return (cast(VCAttn, self.levels[0]).compute_keys_values(references, masks),)

    def forward(self, source: Tensor, keys_values: Sequence[KeysValues]) -> Tensor:
        """Return F_s + F_r->s, of the shape of F_s."""
        (kv,) = keys_values
        return self.levels[0](source, kv)


class AddedReference(nn.Module):
    """No attention (the baseline of Table 5): F_int = F_s + mean over references of F_r, resized.

    It has no weights: the values are F_r itself, the keys are empty.
    """

    def compute_keys_values(
        self, references: Sequence[Tensor], masks: Sequence[Tensor | None] = ()
    ) -> tuple[KeysValues, ...]:
        """Return F_r of each reference as values, for the only level. Raises ValueError for masks."""
        if any(mask is not None for mask in masks):
            raise ValueError('expected a network with attention for masks, got attention="none"')
        batch = max(r.shape[0] for r in references)
        flat = [rearrange(r, "b c h w -> b (h w) c").expand(batch, -1, -1) for r in references]
        value = torch.cat(flat, dim=1)
        grids = tuple((r.shape[2], r.shape[3]) for r in references)
        return (KeysValues(value[..., :0], value, grids),)

    def forward(self, source: Tensor, keys_values: Sequence[KeysValues]) -> Tensor:
        """Return F_s (B, C, h, w) plus the mean of the references' F_r, each resized to h x w."""
        (kv,) = keys_values
        parts = torch.split(kv.value, [h * w for h, w in kv.grids], dim=1)
        total = source
        for part, (h, _) in zip(parts, kv.grids, strict=True):
            planes = rearrange(part, "b (h w) c -> b c h w", h=h)
            resized = F.interpolate(planes, source.shape[2:], mode="bilinear")
            total = total + resized / len(parts)
        return total
