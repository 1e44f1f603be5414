"""Loss functions (Sec. 3.4). Predictions and targets in, one scalar out, unweighted.

LAB planes are (B, 3, H, W) in CIE units; `chroma_scale` (110) brings their errors to the scale of the network's
planes. `mean` in an adversarial loss is the mean over all processes (training.engine.distributed); other
means are over this process's pictures, and averaging the gradients makes them means over all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config.train_config import Adversarial

Mean = Callable[[Tensor], Tensor]
PERCEPTUAL = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Weights of relu{1..5}_1 (Eq. 6)."""


def content_loss(
    prediction: Tensor,
    target: Tensor,
    chroma_weight: float = 0.0,
    huber_delta: float = 0.0,
    mean: Mean = torch.mean,
    chroma_scale: float = 110.0,
) -> Tensor:
    """Eq. 5: mean absolute error between LAB planes (B, 3, H, W) in CIE units, over chroma_scale.

    chroma_weight: ab errors are weighted by `compute_chroma_weight`, normalised to mean 1. huber_delta: ab errors
    go through `huber` where it is above 0.
    """
    error = (prediction - target).abs()
    lightness, ab = error[:, :1], error[:, 1:]
    if huber_delta > 0:
        ab = huber(ab, huber_delta)
    if chroma_weight > 0:
        weight = compute_chroma_weight(target[:, 1:], chroma_weight)
        ab = ab * (weight / mean(weight))
    return torch.cat([lightness, ab], dim=1).mean() / chroma_scale


def compute_chroma_weight(ab: Tensor, chroma_weight: float) -> Tensor:
    """1 + chroma_weight * chroma / 20 of ab (B, 2, H, W) in CIE units -> (B, 1, H, W).

    Saturated colours are rare; weighting them up keeps predictions from turning sepia.
    """
    return 1 + chroma_weight * ab.norm(dim=1, keepdim=True) / 20


def huber(error: Tensor, delta: float) -> Tensor:
    """Twice the Huber loss over delta: e^2 / delta below delta, 2e - delta above; any shape, e >= 0.

    L1 is minimised by the median of the plausible colours, which is often gray; squares by their mean.
    """
    return torch.where(error < delta, error.square() / delta, 2 * error - delta)


def unrelated_reference_loss(
    prediction: Tensor, target: Tensor, reference: Tensor, chroma_scale: float = 110.0
) -> Tensor:
    """Loss with another photo's reference (B, 3, h, w): L1 of L and of the mean ab, scaled as Eq. 5.

    The right colours are unknown; their mean should lie halfway between the target's and the reference's.
    """
    lightness = (prediction[:, 0] - target[:, 0]).abs().mean()
    expected = (target[:, 1:].mean((2, 3)) + reference[:, 1:].mean((2, 3))) / 2
    ab = (prediction[:, 1:].mean((2, 3)) - expected).abs().mean()
    return (lightness + 2 * ab) / 3 / chroma_scale


def perceptual_loss(prediction: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Eq. 6: weighted L1 between features, layer by layer, each (B, C, h, w); fewer than five layers are allowed."""
    terms = zip(PERCEPTUAL, prediction, target, strict=False)
    return torch.stack([w * F.l1_loss(p, t) for w, p, t in terms]).sum()


def discriminator_loss(
    real: Tensor, fake: Tensor, form: Adversarial, mean: Mean = torch.mean
) -> Tensor:
    """Eq. 7 for the discriminator, from its scores (B, 1, h, w) of targets and predictions.

    "ralsgan" (Jolicoeur-Martineau 2018): real above the mean fake by 1, fake below the mean real by 1.
    "paper": as printed, a consistent game of the opposite sign: fake above the mean real by 1.
    """
    if form == "paper":
        return (fake - mean(real) - 1).square().mean()
    above, below = (real - mean(fake) - 1).square(), (fake - mean(real) + 1).square()
    return 0.5 * (above.mean() + below.mean())


def generator_loss(
    real: Tensor, fake: Tensor, form: Adversarial, mean: Mean = torch.mean
) -> Tensor:
    """Eq. 7 for the generator, the counterpart of `discriminator_loss` in the same form."""
    if form == "paper":
        return (real - mean(fake) - 1).square().mean() + (fake - mean(real)).square().mean()
    above, below = (fake - mean(real) - 1).square(), (real - mean(fake) + 1).square()
    return 0.5 * (above.mean() + below.mean())
