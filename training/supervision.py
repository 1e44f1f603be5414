"""Deep supervision and the siamese start: what lets attention lock on before colour flows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scsnet import SCSNet
from scsnet.attention import VCAttn
from scsnet.features import ReferenceFeatures


def siamese_start(net: SCSNet) -> None:
    """phi_E^r starts as a copy of phi_E^s, reference pre-convs and keys as copies of the source's.

    Reference and source then look alike to the attention from the first step. Nothing is tied.
    """
    branch = net.color_branch
    branch.reference_encoder.load_state_dict(branch.source_encoder.state_dict())
    with torch.no_grad():
        branch.reference_initial.weight[:, :1].copy_(net.initial.weight)
        branch.reference_initial.weight[:, 1:].mul_(3)
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
        truth = F.adaptive_avg_pool2d(ab, (features.shape[2], features.shape[3]))
        return F.l1_loss(self.heads[name](features).float(), truth)


def colored(
    net: SCSNet, heads: Supervision | None, source: Tensor, reference_lab: Tensor | None, ab: Tensor
) -> tuple[Tensor, ReferenceFeatures | None, Tensor]:
    """The colour branch step by step: F_color, what it keeps of the reference, loss of the heads (or 0)."""
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
    return branch.decoder(attended), kept, loss
