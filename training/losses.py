"""Loss functions: content (Eq. 5), perceptual (Eq. 6) and adversarial (Eq. 7).

`mean` is the mean over all processes (training.engine.distributed). All other means are over the pictures of this process;
averaging the gradients turns them into means over all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config.train_config import Adversarial

Mean = Callable[[Tensor], Tensor]
CONTENT = 10.0  # weight of `content_loss`
MATCHED = 0.4  # how far the target moves towards the colours of a reference that is another photo
PERCEPTUAL = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # of relu{1..5}_1


def content_loss(
    prediction: Tensor,
    target: Tensor,
    chroma_weight: float = 0.0,
    huber_delta: float = 0.0,
    mean: Mean = torch.mean,
    enlarged: Tensor | None = None,
    scale: float = 110.0,
) -> Tensor:
    """Compute the L1 loss between LAB planes (B, 3, H, W) in CIE units, divided by `scale`, the network's chroma_scale (Eq. 5).

    `chroma_weight`: the ab loss of a pixel is weighted by 1 + chroma_weight * chroma / 20, normalised to mean 1, so that
    rare saturated colours are not outweighed by the many dull ones. `huber_delta`: see `huber`; applied to ab only.
    `enlarged` (B,), bool: photos whose L does not count, because an enlarged target has no detail.
    """
    error = (prediction - target).abs()
    lightness, color = error[:, :1], error[:, 1:]
    if enlarged is not None:
        lightness = lightness * ~enlarged.view(-1, 1, 1, 1)
    if huber_delta > 0:
        color = huber(color, huber_delta)
    if chroma_weight > 0:
        weight = 1 + chroma_weight * target[:, 1:].norm(dim=1, keepdim=True) / 20
        color = color * (weight / mean(weight))
    return torch.cat([lightness, color], dim=1).mean() / scale


def move_target(target: Tensor, matched: Tensor, other: Tensor) -> Tensor:
    """Return LAB (B, 3, H, W) whose ab are moved by `MATCHED` of the way to `matched` (B, 2, H, W) where `other` (B,)."""
    share = MATCHED * other.view(-1, 1, 1, 1).to(target.dtype)
    return torch.cat([target[:, :1], torch.lerp(target[:, 1:], matched, share)], dim=1)


def huber(error: Tensor, delta: float) -> Tensor:
    """Compute the Huber loss of absolute errors, scaled to slope 2 beyond `delta`: e^2 / delta below, 2 e - delta above.

    L1 predicts the median of the plausible colours, which is dull where most of them are; the quadratic part predicts
    their mean.
    """
    return torch.where(error < delta, error.square() / delta, 2 * error - delta)


def perceptual_loss(prediction: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Compute the L1 loss between VGG features (Eq. 6), layer by layer, each (B, C, h, w); a file may have fewer than five layers."""
    terms = zip(PERCEPTUAL, prediction, target, strict=False)
    return torch.stack([w * F.l1_loss(p.float(), t.float()) for w, p, t in terms]).sum()


def discriminator_loss(
    real: Tensor, fake: Tensor, form: Adversarial, mean: Mean = torch.mean
) -> Tensor:
    """Compute the relativistic average least-squares loss of the discriminator (Eq. 7) from its outputs (B, 1, h, w).

    "ralsgan" (Jolicoeur-Martineau 2018): real is to exceed the mean of fake by 1, fake to fall below the mean of real by 1.
    "paper": Eq. 7 as printed, a consistent game of opposite sign: fake is to exceed the mean of real by 1.
    """
    if form == "paper":
        return (fake - mean(real) - 1).square().mean()
    above, below = (real - mean(fake) - 1).square(), (fake - mean(real) + 1).square()
    return 0.5 * (above.mean() + below.mean())


def generator_loss(
    real: Tensor, fake: Tensor, form: Adversarial, mean: Mean = torch.mean
) -> Tensor:
    """Compute the loss of the generator in the same game as `discriminator_loss`; both must use one form."""
    if form == "paper":
        return (real - mean(fake) - 1).square().mean() + (fake - mean(real)).square().mean()
    above, below = (fake - mean(real) - 1).square(), (real - mean(fake) + 1).square()
    return 0.5 * (above.mean() + below.mean())
