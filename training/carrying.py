"""What references start as, without a step of training: colours are carried to where the picture looks alike.

phi_E^r is fitted, layer by layer, to make of a reference what phi_E^s makes of its L, and to carry a and b beside it:
four channels of each layer, those that say least, hold a, -a, b and -b, which LeakyReLU leaves readable (the difference
of the first two is 1.2 a). PVCAttn compares 64 components of what both see, and brings the four channels, which F_s
leaves empty: those components in which places differ most for how little an elastic copy changes them (Fisher's
discriminant; places are the classes). F_int is then F_s, with the reference's colours in four channels of it, and the
extractor adds nothing to these four, so that they reach phi_D as they are.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scsnet import SCSNet, SCSNetConfig
from scsnet.attention import PVCAttn, VCAttn, pool
from scsnet.layers import SLOPE, ConvBlock, activate
from training.data.references import draw_distortion, warp
from training.least_squares import fit, in_parts

GAIN = 3.0  # of normalised ab: about as large as what the other channels say
VALVES = 3.0  # both open: sigmoid(3) = 0.95
RIDGE = 0.01  # of the variance between places, added to that within one
LOOKED_AT = 40  # photos that tell which channels say least


def signed(ab: Tensor) -> Tensor:
    """Normalised ab (N, 2, h, w) -> a, -a, b, -b (N, 4, h, w), times `GAIN`."""
    return GAIN * torch.stack([ab[:, 0], -ab[:, 0], ab[:, 1], -ab[:, 1]], 1)


def colors(carried: Tensor) -> Tensor:
    """The inverse of `signed`, also after LeakyReLU and after any mean over positions."""
    a, b = carried[:, 0] - carried[:, 1], carried[:, 2] - carried[:, 3]
    return torch.stack([a, b], 1) / (GAIN * (1 + SLOPE))


def quietest(before: Tensor) -> list[int]:
    """The four channels of (N, C, h, w) that vary least after their activation."""
    spread = activate(before[:LOOKED_AT], "none").var((0, 2, 3))
    return spread.argsort()[:4].tolist()


def check(config: SCSNetConfig) -> None:
    """Errors: ValueError for a network whose references cannot start so."""
    for name, expected in (("attention", "pyramid_valve"), ("norm", "none")):
        if (got := getattr(config, name)) != expected:
            raise ValueError(f'expected a network with {name}="{expected}", got {got!r}')


@torch.no_grad()
def brought(net: SCSNet, lab: Tensor, references: Tensor, carried: list[int]) -> Tensor:
    """The colours, normalised ab (N, 2, H / 4, W / 4), that PVCAttn brings each photo from its reference.

    Photos and references: normalised LAB (N, 3, H, W).
    """
    branch = net.color_branch

    def one(pair: Tensor) -> Tensor:  # (n, 6, H, W)
        source = branch.source_encoder(net.initial(pair[:, :1]))
        memories = branch.cross_attention.remember([branch.encode_reference(pair[:, 3:])])
        return colors(branch.aggregate(source, memories)[:, carried])

    return in_parts(one, torch.cat([lab, references], 1))


@torch.no_grad()
def start_references(net: SCSNet, lab: Tensor, seed: int = 0) -> list[int]:
    """Fit phi_E^r and PVCAttn of a network to its phi_E^s, on normalised LAB of photos (N, 3, H, W).

    The channels of F_int that then hold the reference's colours. Automatic pictures have 0 there: F_s, and what the
    extractor adds, are changed in these four channels. Errors: ValueError.
    """
    check(net.config)
    branch, generator = net.color_branch, torch.Generator().manual_seed(seed)
    source, carried = _carry(net, lab, generator)
    distortion = draw_distortion(len(lab), generator)
    copies = in_parts(net.initial, warp(lab[:, :1], distortion))
    copied = in_parts(branch.source_encoder, copies)
    _match(cast(PVCAttn, branch.cross_attention), warp(source, distortion), copied, carried)
    extractor = branch.extractor
    if extractor.residual:
        convs = [cast(ConvBlock, block).conv for block in extractor.convs]
        for conv in (*convs, extractor.attention.post):
            conv.weight[carried] = 0
            _bias(conv)[carried] = 0
    return carried


def _carry(net: SCSNet, lab: Tensor, generator: torch.Generator) -> tuple[Tensor, list[int]]:
    """Fit phi_E^r layer by layer; F_s of the photos (N, C, h, w), 0 in the channels that carry."""
    branch, norm = net.color_branch, net.config.norm
    begun = in_parts(net.initial, lab[:, :1])
    carried = quietest(begun)
    first = branch.reference_initial
    first.weight.zero_()
    first.weight[:, :1] = net.initial.weight
    first.weight[carried] = 0
    for sign, place in zip(signed(torch.eye(2)[..., None])[..., 0].T, carried, strict=True):
        first.weight[place, 1:, 1, 1] = sign
    _bias(first).copy_(_bias(net.initial))
    _bias(first)[carried] = 0
    source = activate(begun, norm)
    seen = in_parts(lambda part: activate(first(part), norm), lab)
    ab = lab[:, 1:]
    blocks = [*zip(branch.source_encoder.blocks, branch.reference_encoder.blocks, strict=True)]
    for ours, theirs in blocks:
        assert isinstance(ours, ConvBlock)
        assert isinstance(theirs, ConvBlock)
        wanted = in_parts(ours.conv, source)
        carried = quietest(wanted)
        if ours is blocks[-1][0]:
            ours.conv.weight[carried] = 0
            _bias(ours.conv)[carried] = 0
        ab = F.adaptive_avg_pool2d(ab, (wanted.shape[2], wanted.shape[3]))
        wanted[:, carried] = signed(ab)
        fit(theirs.conv, seen, wanted, generator)
        source, seen = in_parts(ours, source), in_parts(theirs, seen)
    return source, carried


def components(source: Tensor, copied: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """What tells places apart: weights (count, C) and offsets (count,) for features (N, C, h, w).

    `copied` is what is seen of an elastic copy, `source` the same features brought to where it has them.
    """
    seen, same = (x.permute(0, 2, 3, 1).flatten(0, 2).double() for x in (copied, source))
    between, within = torch.cov(seen.T), torch.cov((seen - same).T)
    within = within + RIDGE * between
    within += 1e-6 * between.diagonal().mean() * torch.eye(len(within))
    whitening = torch.linalg.inv(torch.linalg.cholesky(within))
    _, vectors = torch.linalg.eigh(whitening @ between @ whitening.T)
    weights = vectors[:, -count:].T @ whitening
    return weights.float(), -(weights @ seen.mean(0)).float()


def _match(attention: PVCAttn, source: Tensor, copied: Tensor, carried: list[int]) -> None:
    """PVCAttn compares what F_s (N, C, h, w) says, its finest level brings the channels `carried`."""
    channels = source.shape[1]
    others = [c for c in range(channels) if c not in carried]
    opened = torch.sigmoid(torch.tensor(VALVES))
    for module in attention.levels:
        level = cast(VCAttn, module)
        here, there = (pool(x, level.factor)[:, others] for x in (source, copied))
        weights, offsets = components(here, there, level.query.out_channels)
        for conv in (level.pre_source, level.pre_reference, level.value, level.query, level.key):
            conv.weight.zero_()
            _bias(conv).zero_()
        for conv in (level.pre_source, level.pre_reference):
            conv.weight[range(channels), range(channels), 1, 1] = 1
        level.value.weight[carried, carried, 0, 0] = 1
        for conv in (level.query, level.key):
            conv.weight[:, others, 0, 0] = weights
            _bias(conv).copy_(offsets)
        assert level.valve is not None
        level.valve.weight.zero_()
        _bias(level.valve).fill_(VALVES)
    attention.post.weight.zero_()
    _bias(attention.post).zero_()
    attention.post.weight[range(channels), range(channels)] = 1 / opened


def _bias(conv: nn.Module) -> Tensor:
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    return conv.bias
