"""Losses: predicted and true planes in, one number out."""

from __future__ import annotations

import torch
from torch import Tensor


def content_loss(predicted: Tensor, truth: Tensor, rebalance: float = 0.0) -> Tensor:
    """Eq. 5: L1 between LAB planes (B, 3, H, W) in CIE units, divided by 110.

    `rebalance` makes a pixel weigh 1 + rebalance * chroma / 20, mean 1: rare strong colours then pull
    as much as the many dull ones that draw a prediction to sepia.
    """
    difference = (predicted - truth).abs() / 110
    if rebalance > 0:
        weight = 1 + rebalance * truth[:, 1:].square().sum(1, keepdim=True).sqrt() / 20
        difference = torch.cat(
            [difference[:, :1], difference[:, 1:] * (weight / weight.mean())], dim=1
        )
    return difference.mean()
