"""A stage of a training run. Sizes are in pixels of the gray input; the docstring of a field is its help text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Trains = Literal["everything", "all_but_texture", "color", "details"]


def check_at_least(config: object, name: str, low: int) -> None:
    """Raise ValueError if a field is below `low` or NaN."""
    if not getattr(config, name) >= low:
        raise ValueError(f"{name} must be at least {low}, got {getattr(config, name)}")


def check_fraction(config: object, name: str) -> None:
    """Raise ValueError if a field is not within 0..1."""
    if not 0 <= getattr(config, name) <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {getattr(config, name)}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a run: inputs, losses and learning rate for a number of steps."""

    steps: int = 1000
    """Optimizer steps."""
    epochs: float = 0.0
    """Passes over all photos. If above 0, it replaces steps."""
    batch: int = 16
    """Photos per step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts that a batch is split into; gradients are accumulated to save memory."""
    size: int = 48
    """Side of the gray input, and working size of the colour branch."""
    magnification: tuple[float, float] = (1.0, 1.0)
    """Range from which the magnification of a batch is drawn, log-uniformly."""
    window: int = 0
    """Side of the random window of the output that is decoded and compared. 0: the whole output."""
    reference_fraction: float = 0.67
    """Fraction of the batches that have references; the others are automatic. 0: all automatic, 1: none."""
    trains: Trains = "everything"
    """Parameters that are updated: everything, all_but_texture (all but psi_E), color (the colour branch phi) or details
    (psi_E and CPM; photos smaller than the target are passed over)."""
    learning_rate: float = 5e-4
    """Peak learning rate, reached after the warm-up."""
    warmup: int = 100
    """Steps of linear warm-up at the start of the stage."""
    final_fraction: float = 0.03
    """Learning rate at the end of the cosine decay, as a fraction of the peak. 1: constant."""
    perceptual: float = 0.0
    """Weight of the L1 loss between VGG features (Eq. 6); the paper's is 5. The L1 loss between LAB planes (Eq. 5) has 10."""
    adversarial: float = 0.0
    """Weight of the relativistic adversarial loss (Eq. 7); the paper's is 1."""
    supervision: float = 10.0
    """Weight of the deep supervision of the colour branch; it decays to 0 in the first half of the stage."""
    chroma_weight: float = 0.5
    """Automatic batches: the ab loss of a pixel is weighted by 1 + chroma_weight * chroma / 20, normalised to mean 1."""
    huber_delta: float = 0.0
    """Automatic batches: ab errors below this (CIE units) are penalised quadratically. 0: plain L1."""
    masks: float = 0.0
    """Referential batches: fraction of the photos whose reference is masked, by regions, strokes or dots."""
    others: float = 0.0
    """Referential batches: fraction of the photos whose reference is another photo. The target moves towards its colours,
    as the prior matches them."""
    degrade: float = 0.0
    """Fraction of the inputs degraded like scans of old prints (blur, noise, JPEG, fading, toning, grain); as many,
    drawn independently, have margins."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate"):
            check_at_least(self, name, 1)
        for name in (
            *("epochs", "window", "warmup", "final_fraction", "perceptual"),
            *("adversarial", "supervision", "chroma_weight", "huber_delta"),
        ):
            check_at_least(self, name, 0)
        for name in ("reference_fraction", "masks", "others", "degrade", "learning_rate"):
            check_fraction(self, name)
        if self.batch % self.accumulate:
            raise ValueError(
                f"batch must be a multiple of accumulate, got {self.batch} and {self.accumulate}"
            )
        if self.size < 8 or self.size % 4:
            raise ValueError(f"size must be a multiple of 4, at least 8, got {self.size}")
        if (
            len(self.magnification) != 2
            or not 0 < self.magnification[0] <= self.magnification[1] <= 64
        ):
            raise ValueError(
                f"magnification must be two numbers, 0 < low <= high <= 64, got {self.magnification}"
            )
        if self.trains not in get_args(Trains):
            raise ValueError(f"trains must be one of {get_args(Trains)}, got {self.trains!r}")
        if self.adversarial and self.smallest_target < 32:
            raise ValueError(
                "the adversarial loss needs at least 32 pixels of output: size x the lowest "
                f"magnification and window must reach that, got {self.smallest_target}"
            )

    @property
    def smallest_target(self) -> int:
        """Side of the smallest picture that the losses compare."""
        smallest = max(1, round(self.size * self.magnification[0]))
        return min(self.window or smallest, smallest)

    @property
    def largest_output(self) -> int:
        """Side of the largest output grid."""
        return max(1, round(self.size * self.magnification[1]))
