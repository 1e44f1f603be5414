"""A stage of a training run. Sizes are in pixels of the gray input; the docstring of a field is its help text."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

Trains = Literal["everything", "all_but_texture", "color", "details"]


def check_ranges(config: object, names: str, low: float, high: float = inf) -> None:
    """Raise ValueError if a field of a config is not within low..high; `names` are separated by spaces."""
    for name in names.split():
        value = getattr(config, name)
        if not low <= value <= high:
            limits = f"at least {low}" if high == inf else f"between {low} and {high}"
            raise ValueError(f"{name} must be {limits}, got {value}")


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
        check_ranges(self, "steps batch accumulate", 1)
        check_ranges(self, "epochs window warmup final_fraction perceptual adversarial", 0)
        check_ranges(self, "supervision chroma_weight huber_delta", 0)
        check_ranges(self, "reference_fraction masks others degrade learning_rate", 0, 1)
        if self.batch % self.accumulate:
            given = f"{self.batch} and {self.accumulate}"
            raise ValueError(f"batch must be a multiple of accumulate, got {given}")
        if self.size < 8 or self.size % 4:
            raise ValueError(f"size must be a multiple of 4, at least 8, got {self.size}")
        low, high = self.magnification
        if not 0 < low <= high <= 64:
            raise ValueError(f"magnification must be 0 < low <= high <= 64, got {low} {high}")
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
