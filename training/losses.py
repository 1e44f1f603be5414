"""Losses: what the network made and the truth in, one number out. No logging, no weights of terms.

`mean` in an adversarial loss is the mean over all processes (training.engine.distributed); anything else is a
mean over this process's pictures, which the averaging of gradients turns into one over all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config.train_config import Adversarial

Mean = Callable[[Tensor], Tensor]
PERCEPTUAL = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # of relu{1..5}_1


def content_loss(
    predicted: Tensor,
    truth: Tensor,
    rebalance: float = 0.0,
    softness: float = 0.0,
    mean: Mean = torch.mean,
    redness: float = 1.0,
    coldness: float = 0.0,
) -> Tensor:
    """Eq. 5: L1 between LAB planes (B, 3, H, W) in CIE units, divided by 110.

    `rebalance`, `coldness`: a pixel's ab weighs as much as its `importance`, mean 1.

    `softness`: differences of ab are `softened` where it is above 0. `redness`: how much a weighs against b.
    """
    difference = (predicted - truth).abs()
    if softness > 0:
        difference = torch.cat([difference[:, :1], huber(difference[:, 1:], softness)], dim=1)
    difference = difference / 110
    if redness != 1:
        difference = difference * difference.new_tensor([1, redness, 1]).view(1, 3, 1, 1)
    if rebalance > 0 or coldness > 0:
        weight = compute_color_weight(truth[:, 1:], rebalance, coldness)
        weighted = difference[:, 1:] * (weight / mean(weight))
        difference = torch.cat([difference[:, :1], weighted], dim=1)
    return difference.mean()


def compute_color_weight(ab: Tensor, rebalance: float, coldness: float) -> Tensor:
    """How much a colour counts: ab (B, 2, ...) in CIE units -> (B, 1, ...).

    1 + rebalance * chroma / 20: rare strong colours then pull as much as the many dull ones that draw a prediction to
    sepia. `coldness` adds coldness * (green + blue) / 20, -a and -b where they are above 0: between leaf and earth, sky
    and cloud, the guess leans to leaf and sky.
    """
    chroma = ab.square().sum(1, keepdim=True).sqrt()
    cold = (-ab).clamp(min=0).sum(1, keepdim=True)
    return 1 + (rebalance * chroma + coldness * cold) / 20


def huber(difference: Tensor, softness: float) -> Tensor:
    """A difference d counts as d^2 / softness below `softness` and 2d - softness beyond it; any shape.

    L1 asks for the median of the colours that are plausible, which is dull where most are; squares ask for their mean.
    """
    squares = difference.square() / softness
    return torch.where(difference < softness, squares, 2 * difference - softness)


def stranger_loss(
    predicted: Tensor, truth: Tensor, reference: Tensor, coherence: float = 0.0
) -> Tensor:
    """Of LAB (B, 3, H, W) in CIE units made with another photo's reference (B, 3, h, w); scaled as Eq. 5.

    L is judged as ever. What the colours should be nobody knows: only their mean is, by L1, halfway between the
    photo's own and the reference's. `coherence` weighs the L1 from the photo's own ab, all moved by that same half
    way: a palette over the whole picture then costs less than spots of colour with the right mean.
    """
    lightness = (predicted[:, 0] - truth[:, 0]).abs().mean()
    own, borrowed = truth[:, 1:].mean((2, 3)), reference[:, 1:].mean((2, 3))
    mean = (predicted[:, 1:].mean((2, 3)) - (own + borrowed) / 2).abs().mean()
    moved = truth[:, 1:] + ((borrowed - own) / 2)[..., None, None]  # (B, 2, H, W)
    spots = (predicted[:, 1:] - moved).abs().mean()
    return (lightness + 2 * mean + 2 * coherence * spots) / 3 / 110


def perceptual_loss(predicted: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Eq. 6 between the features of both pictures, layer by layer, each (B, C, h, w)."""
    terms = zip(PERCEPTUAL, predicted, truth, strict=False)  # a file may have fewer layers
    return torch.stack([w * F.l1_loss(p.float(), t.float()) for w, p, t in terms]).sum()


def discriminator_loss(
    real: Tensor, fake: Tensor, form: Adversarial, mean: Mean = torch.mean
) -> Tensor:
    """Eq. 7, the discriminator's side. real, fake: its outputs for both, (B, 1, h, w).

    "ralsgan" (Jolicoeur-Martineau 2018): real above the mean fake by 1, fake below the mean real by 1.
    "paper": as printed, which is a consistent game of the opposite sign: fake above the mean real by 1.
    """
    if form == "paper":
        return (fake - mean(real) - 1).square().mean()
    above, below = (real - mean(fake) - 1).square(), (fake - mean(real) + 1).square()
    return 0.5 * (above.mean() + below.mean())


def generator_loss(
    real: Tensor, fake: Tensor, form: Adversarial, mean: Mean = torch.mean
) -> Tensor:
    """Eq. 7, the generator's side; see `discriminator_loss`. Both sides must have one form."""
    if form == "paper":
        return (real - mean(fake) - 1).square().mean() + (fake - mean(real)).square().mean()
    above, below = (fake - mean(real) - 1).square(), (real - mean(fake) + 1).square()
    return 0.5 * (above.mean() + below.mean())


def cosine_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - cosine along the channels, both (B, C, h, w), `predicted` brought to the target's h x w."""
    pooled = F.adaptive_avg_pool2d(predicted.float(), (target.shape[2], target.shape[3]))
    return 1 - F.cosine_similarity(pooled, target.float(), dim=1).mean()
