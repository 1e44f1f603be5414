"""Deep supervision and siamese initialisation of the colour branch, which are used in training only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scsnet import SCSNet
from scsnet.attention import VCAttn


def initialize_siamese(net: SCSNet) -> None:
    """Initialise phi_E^r by phi_E^s, and in all attention the keys by the queries and the reference's convolution by the source's.

    Similar content then has similar queries and keys from the first step. No weights are shared.
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


class SupervisionHeads(nn.Module):
    """1x1 convolutions that predict ab at a quarter of the size from features inside the colour branch."""

    POINTS = ("reference", "aggregated", "extracted", "attended")

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Conv2d(channels, 2, 1) for name in self.POINTS})

    def loss(self, name: str, features: Tensor, ab: Tensor) -> Tensor:
        """Compute the L1 loss between the head's prediction and average-pooled ab.

        features: (B, C, h, w); ab: normalised, (B, 2, H, W).
        """
        target = F.adaptive_avg_pool2d(ab, (features.shape[2], features.shape[3]))
        return F.l1_loss(self.heads[name](features).float(), target)
