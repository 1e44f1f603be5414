"""Deep supervision and the siamese initialisation, which let the attention find matches early in training."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scsnet import SCSNet
from scsnet.attention import VCAttn
from scsnet.features import ReferenceFeatures


@torch.no_grad()
def initialize_siamese(net: SCSNet) -> None:
    """Copy phi_E^s to phi_E^r, and in all attention the source's pre-convolution and queries to reference and keys.

    Reference and source features are then comparable from the first step. The weights are not tied.
    """
    branch = net.color_branch
    branch.reference_encoder.load_state_dict(branch.source_encoder.state_dict())
    branch.reference_initial.weight[:, :1].copy_(net.initial.weight)
    branch.reference_initial.weight[:, 1:].mul_(3)
    for module in net.modules():
        if isinstance(module, VCAttn):
            module.pre_reference.load_state_dict(module.pre_source.state_dict())
            module.key.load_state_dict(module.query.state_dict())


class Supervision(nn.Module):
    """1x1 heads that predict ab at quarter size from features inside the colour branch; not exported."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                name: nn.Conv2d(channels, 2, 1)
                for name in ("reference", "joined", "extracted", "attended")
            }
        )

    def loss(self, name: str, features: Tensor, ab: Tensor) -> Tensor:
        """L1 between the head's prediction from features (B, 256, h, w) and normalised ab (B, 2, H, W), pooled to h x w."""
        target = F.adaptive_avg_pool2d(ab, (features.shape[2], features.shape[3]))
        return F.l1_loss(self.heads[name](features).float(), target)


class ColorBranchOutput(NamedTuple):
    """Output of the colour branch in training, before phi_D."""

    reference: ReferenceFeatures | None
    """Features of the reference."""
    attended: Tensor
    """Features after SAttn (B, 256, h, w)."""
    supervision: Tensor
    """Loss of the deep supervision, or 0; a float32 scalar."""


def run_color_branch(
    net: SCSNet, heads: Supervision | None, source: Tensor, reference_lab: Tensor | None, ab: Tensor
) -> ColorBranchOutput:
    """Evaluate the colour branch up to SAttn, step by step to reach the features that `heads` supervise.

    source: F_s (B, 256, h, w); reference_lab (B, 3, H, W) and ab (B, 2, H, W): normalised planes.
    """
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
        inner = {"joined": joined, "extracted": extracted, "attended": attended}
        for name, features in inner.items():
            loss = loss + heads.loss(name, features, ab)
    return ColorBranchOutput(
        None if memories is None else ReferenceFeatures(memories), attended, loss
    )
