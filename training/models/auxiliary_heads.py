"""Deep supervision and the siamese start: what lets attention lock on before colour flows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scsnet import Features, SCSNet
from scsnet.attention import VCAttn
from scsnet.features import ReferenceFeatures
from training.least_squares import PARTS, solve


def siamese_start(net: SCSNet) -> None:
    """phi_E^r starts as a copy of phi_E^s, reference pre-convs and keys as copies of the source's.

    Reference and source then look alike to the attention from the first step. Nothing is tied.
    """
    branch = net.color_branch
    branch.reference_encoder.load_state_dict(branch.source_encoder.state_dict())
    with torch.no_grad():
        branch.reference_initial.weight[:, :1].copy_(net.initial.weight)
        branch.reference_initial.weight[:, 1:].mul_(3)
    keys_like_queries(net)


def keys_like_queries(net: SCSNet) -> None:
    """In all attention, that of the picture to itself too, references and source begin to be seen alike."""
    for module in net.modules():
        if isinstance(module, VCAttn):
            module.pre_reference.load_state_dict(module.pre_source.state_dict())
            module.key.load_state_dict(module.query.state_dict())


class Supervision(nn.Module):
    """1x1 heads that predict ab at quarter size from inside the colour branch; thrown away at the end."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                name: nn.Conv2d(channels, 2, 1)
                for name in ("reference", "joined", "extracted", "attended")
            }
        )

    def loss(self, name: str, features: Tensor, ab: Tensor) -> Tensor:
        """L1 between the prediction from `features` (B, 256, h, w) and `ab` (B, 2, H, W), pooled."""
        return F.l1_loss(self.heads[name](features).float(), pooled(ab, features))


class Classification(nn.Module):
    """1x1 heads that predict which of 22 x 22 classes the ab at quarter size is in; thrown away at the end.

    L1 asks for one colour between all that are plausible; a class may say "green or brown, not grey"
    (Zhang et al. 2016), and what the features learn for that is what automatic colours need.
    """

    SIDE, WIDTH = 22, 10  # classes along each of a and b; CIE units each covers

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {name: nn.Conv2d(channels, self.SIDE**2, 1) for name in ("source", "attended")}
        )

    @classmethod
    def classes(cls, ab: Tensor) -> Tensor:
        """ab in CIE units (B, 2, h, w) -> the class of each position (B, h, w)."""
        a, b = ((ab / cls.WIDTH).round() + cls.SIDE // 2).clamp(0, cls.SIDE - 1).long().unbind(1)
        return a * cls.SIDE + b

    def loss(self, features: Mapping[str, Tensor], ab: Tensor) -> Tensor:
        """Cross-entropy from F_s and from what SAttn made, each (B, 256, h, w); ab (B, 2, H, W), CIE units."""
        truth = self.classes(pooled(ab, features["source"]))
        losses = [
            F.cross_entropy(head(features[name]).float(), truth)
            for name, head in self.heads.items()
        ]
        return torch.stack(losses).mean()


class Colored(NamedTuple):
    """What the colour branch gives in training, before phi_D."""

    kept: ReferenceFeatures | None
    """Of the reference."""
    attended: Tensor
    """After SAttn (B, 256, h, w)."""
    deep: Tensor
    """Loss of the deep supervision, or 0."""


def colored(
    net: SCSNet, heads: Supervision | None, source: Tensor, reference_lab: Tensor | None, ab: Tensor
) -> Colored:
    """The colour branch up to SAttn, step by step; normalised reference LAB and ab."""
    branch, loss = net.color_branch, source.new_zeros((), dtype=torch.float32)
    memories = None
    if reference_lab is not None:
        encoded = branch.encode_reference(reference_lab)
        if heads is not None:
            loss = loss + heads.loss("reference", encoded, reference_lab[:, 1:])
        memories = branch.cross_attention.remember([encoded])
    joined = branch.aggregate(source, memories)
    extracted = branch.extractor.convolve(joined)
    attended = branch.extractor.attend(extracted)
    if heads is not None:
        for name, features in (
            ("joined", joined),
            ("extracted", extracted),
            ("attended", attended),
        ):
            loss = loss + heads.loss(name, features, ab)
    kept = None if memories is None else ReferenceFeatures(memories)
    return Colored(kept, attended, loss)


@torch.no_grad()
def start_head(net: SCSNet, head: nn.Conv2d, lab: Tensor) -> None:
    """Fit the head of coarse stages to say what phi_D, psi_E and CPM make of the same features, by least squares.

    `lab`: normalised LAB of photos (N, 3, H, W), of which L is looked at. What phi learns for the head is then written
    where phi_D reads it.
    """
    branch, size = net.color_branch, (lab.shape[2], lab.shape[3])
    rows, wanted = [], []
    for luminance in lab[:, :1].split(PARTS):
        initial = net.initial(luminance)
        source = branch.source_encoder(initial)
        attended = branch.extractor(source)
        color, texture = branch.decoder(attended), net.texture_encoder(initial)
        made = net.decode(Features(luminance, color, source, texture, None), size)
        # (n, C, h, w) -> (n h w, C)
        rows.append(attended.permute(0, 2, 3, 1).flatten(0, 2))
        wanted.append(pooled(made[:, 1:], attended).permute(0, 2, 3, 1).flatten(0, 2))
    seen = F.pad(torch.cat(rows), (0, 1), value=1.0).double()
    solve(head, seen.T @ seen, seen.T @ torch.cat(wanted).double())


def pooled(planes: Tensor, like: Tensor) -> Tensor:
    """(B, C, H, W) -> means of cells, as many as `like` (B, D, h, w) has."""
    return F.adaptive_avg_pool2d(planes, (like.shape[2], like.shape[3]))
