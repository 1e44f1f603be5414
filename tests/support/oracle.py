"""The paper's formulas, written straightforwardly in any precision: what the fast code must equal.

Only the weights are taken from the network; every matrix is written out, and nothing is folded, fused, tiled or
shared.
"""

from fractions import Fraction
from math import floor

import torch
import torch.nn.functional as F
from einops import rearrange

CPM_GRIDS = [
    ((8, 8), (32, 32)), ((7, 5), (16, 27)), ((9, 12), (5, 4)), ((6, 6), (6, 6)), ((1, 1), (3, 4)),
    ((5, 1), (1, 7)), ((3, 4), (1, 1)),
]  # fmt: skip
"""Sizes of features and of the planes that CPM maps them to."""


def error(got, expected):
    """Largest difference, relative to the largest value."""
    return (got - expected).abs().max() / expected.abs().max()


def convolution(conv, x):
    return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)


def activation(x, config):
    if config.norm == "instance":
        mean = x.mean((2, 3), keepdim=True)
        x = (x - mean) / (x.var((2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
    return torch.where(x > 0, x, 0.2 * x)


def block(module, x, config):
    return activation(convolution(module.conv, x), config)


def encoder(module, initial, config):
    x = activation(initial, config)
    for part in module.blocks:
        x = block(part, x, config)
    return x


def unit(x, config):
    return x / x.norm(dim=1, keepdim=True).clamp_min(1e-12) if config.cosine_attention else x


def pooled(x, factor):
    """Average over factor x factor cells, cut off at the border."""
    padding = (0, -x.shape[3] % factor, 0, -x.shape[2] % factor)
    padded = F.pad(x, padding, value=torch.nan)
    cells = rearrange(padded, "b c (h i) (w j) -> b c h w (i j)", i=factor, j=factor)
    return cells.nanmean(-1)


def correlation(attn, source, references, config):
    """CMat (B, positions of the source, positions of all references) and V."""
    s = pooled(source, attn.factor)
    query = unit(convolution(attn.query, convolution(attn.pre_source, s)), config).flatten(2)
    keys, values = [], []
    for reference in references:
        r = convolution(attn.pre_reference, pooled(reference, attn.factor))
        keys.append(unit(convolution(attn.key, r), config).flatten(2))
        values.append(convolution(attn.value, r).flatten(2))
    scores = torch.einsum("bdn,bdm->bnm", query, torch.cat(keys, 2)) * config.attention_scale
    return torch.softmax(scores, -1), torch.cat(values, 2), s


def vcattn(attn, source, references, config):
    matrix, value, s = correlation(attn, source, references, config)
    aggregated = torch.einsum("bnm,bcm->bcn", matrix, value).reshape(s.shape)
    if attn.valve is None:
        return s + aggregated
    valves = torch.sigmoid(convolution(attn.valve, torch.cat([s, aggregated], 1)))
    return valves[:, :1] * s + valves[:, 1:] * aggregated


def pvcattn(module, source, references, config):
    levels = []
    for attn in module.levels:
        level = vcattn(attn, source, references, config)
        if attn.factor > 1:
            level = F.interpolate(level, scale_factor=attn.factor, mode="bilinear")
        levels.append(level[..., : source.shape[2], : source.shape[3]])
    joined = torch.cat(levels, 1)
    return convolution(module.post, joined) if hasattr(module, "post") else joined


def texture(net, luminance):
    """F_tex of a picture of any size."""
    x = convolution(net.initial, luminance)
    for part in net.texture_encoder.blocks:
        x = x + convolution(part.conv2, F.relu(convolution(part.conv1, x)))
    return x


def color(net, luminance, references):
    """F_color of a picture whose sides are multiples of 4."""
    config, branch = net.config, net.color_branch
    x = encoder(branch.source_encoder, convolution(net.initial, luminance), config)
    if references:
        features = [
            encoder(branch.reference_encoder, convolution(branch.reference_initial, r), config)
            for r in references
        ]
        x = pvcattn(branch.cross_attention, x, features, config)
    for conv in branch.extractor.convs:
        x = x + block(conv, x, config) if config.residual else block(conv, x, config)
    attended = pvcattn(branch.extractor.attention, x, [x], config)
    x = x + attended if config.residual else attended
    for part in (branch.decoder.at_half, branch.decoder.at_full):
        x = F.interpolate(x, scale_factor=2, mode="bilinear")
        for conv in part:
            x = block(conv, x, config)
    return x


def look_up(n_in, n_out, i, align):
    """Where output pixel i samples (a fraction of input pixels) and its Z, by exact fractions."""
    if align == "paper":
        x = Fraction(i, n_out - 1) if n_out > 1 else Fraction(0)
        position = x * (n_in - 1)
    else:
        x = Fraction(2 * i + 1, 2 * n_out)
        position = x * n_in - Fraction(1, 2)
    cell = x * n_in
    return min(max(position, Fraction(0)), Fraction(n_in - 1)), 2 * (cell - floor(cell)) - 1


def bilinear(planes, size, align):
    """planes (B, C, H, W) at the pixels of a grid of `size`."""
    return F.interpolate(planes, size, mode="bilinear", align_corners=align == "paper")


def cpm(net, features, size):
    """Eq. 3 and the four linear layers: cat(F_tex, F_color) -> planes (B, 3, Ht, Wt)."""
    head, align = net.head, net.config.cpm_align
    main = bilinear(convolution(head.fuse, features), size, align)
    y, x = (
        main.new_tensor([float(look_up(n, m, i, align)[1]) for i in range(m)])
        for n, m in zip(features.shape[2:], size, strict=True)
    )
    z = torch.stack(torch.meshgrid(x, y, indexing="xy")).expand(main.shape[0], -1, -1, -1)
    x = torch.cat([main, z], 1).permute(0, 2, 3, 1)
    for index, linear in enumerate(head.linears):
        x = F.linear(F.relu(x) if index else x, linear.weight, linear.bias)
    return x.permute(0, 3, 1, 2)


def scsnet(net, luminance, references, size):
    """The whole of Fig. 3 at the source's own size: L (B, 1, H, W) -> planes (B, 3, Ht, Wt)."""
    features = torch.cat([texture(net, luminance), color(net, luminance, references)], 1)
    planes = cpm(net, features, size)
    if net.config.luminance_skip:
        planes[:, :1] += bilinear(luminance, size, net.config.cpm_align)
    return planes
