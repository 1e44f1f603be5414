"""The paper's formulas, written straightforwardly in PyTorch: the baseline of the benchmarks.

Same weights, same result: every attention matrix is written out, CPM gathers 256 features and two
coordinates for each output pixel and maps all 258 through the first linear layer, in float32, whole
pictures at a time, in PyTorch's default memory layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scsnet import SCSNet
from scsnet.attention import PVCAttn, VCAttn, pool
from scsnet.cpm import CPM
from scsnet.layers import upsample
from scsnet.resample import pad_to_stride, resize_to_working_size


def vcattn(level: VCAttn, source: Tensor, references: Sequence[Tensor]) -> Tensor:
    """Compute VCAttn (Fig. 4) with CMat in memory: F_s (B, 256, h, w) -> F_t of the level."""
    pooled = pool(source, level.factor)
    query = level.query(level.pre_source(pooled)).flatten(2)
    features = [level.pre_reference(pool(r, level.factor)) for r in references]
    key = torch.cat([level.key(f).flatten(2) for f in features], dim=2)
    value = torch.cat([level.value(f).flatten(2) for f in features], dim=2)
    if level.cosine:
        query, key = F.normalize(query, dim=1), F.normalize(key, dim=1)
    matrix = torch.softmax(level.scale * query.mT @ key, dim=-1)  # (B, h w, N)
    aggregated = (value @ matrix.mT).view_as(pooled)
    v1, v2 = level.compute_valves(pooled, aggregated)
    return v1 * pooled + v2 * aggregated


def pvcattn(module: PVCAttn, source: Tensor, references: Sequence[Tensor]) -> Tensor:
    """Compute PVCAttn (Fig. 5)."""
    height, width = source.shape[2:]
    levels = [cast(VCAttn, level) for level in module.levels]
    parts = [
        upsample(vcattn(v, source, references), v.factor)[..., :height, :width] for v in levels
    ]
    return module.post(torch.cat(parts, dim=1))


def encode(net: SCSNet, luminance: Tensor, references: Sequence[Tensor] = ()) -> Tensor:
    """Encode L (B, 1, H, W) to cat(F_tex, F_color) (B, 128, H, W), at the network's working size."""
    branch, bound = net.color_branch, net.config.working_size
    working = resize_to_working_size(luminance, bound)
    source = branch.source_encoder(net.initial(pad_to_stride(working)))
    if references:
        encoded = [
            branch.encode_reference(pad_to_stride(resize_to_working_size(r, bound)))
            for r in references
        ]
        source = pvcattn(cast(PVCAttn, branch.cross_attention), source, encoded)
    extracted = branch.extractor.convolve(source)
    attended = pvcattn(branch.extractor.attention, extracted, [extracted])
    attended = extracted + attended if branch.extractor.residual else attended
    color = branch.decoder(attended)[..., : working.shape[2], : working.shape[3]]
    color = F.interpolate(color, luminance.shape[2:], mode="bilinear")
    return torch.cat([net.texture_encoder(net.initial(luminance)), color], dim=1)


def decode(
    net: SCSNet,
    features: Tensor,
    luminance: Tensor,
    size: tuple[int, int],
    window: tuple[int, int, int, int] | None = None,
) -> Tensor:
    """Map cat(F_tex, F_color) to planes (B, 3, Ht, Wt): Eq. 3, then four linear layers.

    Or a window (top, left, height, width) of them.
    """
    head = cast(CPM, net.head)
    fused = head.fuse(features)
    batch, _, height, width = fused.shape
    top, left, tall, wide = window or (0, 0, *size)
    rows, columns = slice(top, top + tall), slice(left, left + wide)
    y, x = ((torch.arange(n) + 0.5) / n for n in size)
    y, x = y[rows], x[columns]
    grid = torch.stack(torch.meshgrid(y * 2 - 1, x * 2 - 1, indexing="ij")[::-1], dim=-1)
    main = F.grid_sample(
        fused,
        grid.expand(batch, -1, -1, -1),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    zy, zx = torch.frac(y * height) * 2 - 1, torch.frac(x * width) * 2 - 1
    relative = torch.stack(torch.meshgrid(zy, zx, indexing="ij")[::-1])
    both = torch.cat([main, relative.expand(batch, -1, -1, -1)], dim=1)
    hidden = both.permute(0, 2, 3, 1)  # (B, Ht, Wt, 258)
    for index, linear in enumerate(head.linears):
        hidden = cast(nn.Linear, linear)(F.relu(hidden) if index else hidden)
    planes = hidden.permute(0, 3, 1, 2)
    if net.config.luminance_skip:
        enlarged = F.interpolate(luminance, size, mode="bilinear")[..., rows, columns]
        planes = torch.cat([planes[:, :1] + enlarged, planes[:, 1:]], dim=1)
    return planes


def decode_bytes(size: tuple[int, int]) -> int:
    """Return a lower bound of the bytes `decode` needs: 258 planes and the 256 of the next layer, in float32."""
    return size[0] * size[1] * (258 + 256) * 4
