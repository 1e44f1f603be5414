"""A part of a training run. Sizes are in pixels of the gray input unless said otherwise; a field's docstring is its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Trains = Literal["everything", "color"]


def check_at_least(config: object, name: str, low: int) -> None:
    """Raises: ValueError if a field is below `low` or NaN."""
    if not getattr(config, name) >= low:  # also false for NaN
        raise ValueError(f"{name} must be at least {low}, got {getattr(config, name)}")


def check_fraction(config: object, name: str) -> None:
    """Raises: ValueError if a field is not in 0..1."""
    if not 0 <= getattr(config, name) <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {getattr(config, name)}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a run: batches, losses and learning rate for a number of steps."""

    steps: int = 1000
    """Steps of the optimizers."""
    epochs: float = 0.0
    """Length in passes over the photos; replaces `steps` unless 0."""
    batch: int = 16
    """Pictures per step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts that a batch is split into, computed one after the other to save memory."""
    size: int = 48
    """Side of the square gray input."""
    magnification: tuple[float, float] = (1.0, 1.0)
    """Range that the magnification of each batch is drawn from, log-uniformly."""
    window: int = 0
    """Side in output pixels of the random window that is decoded and compared. 0: the whole output."""
    reference_fraction: float = 2 / 3
    """Share of the batches that have references, spread evenly; the others are automatic."""
    unrelated_fraction: float = 0.0
    """Share of the batches with references whose references show other photos; only the mean of their ab is compared."""
    trains: Trains = "everything"
    """"color" leaves psi_E as it is (an untrained psi_E is skipped: F_tex = F_init)."""
    learning_rate: float = 5e-4
    """Highest learning rate, reached after the warm-up."""
    warmup: int = 100
    """Steps of linear warm-up."""
    final_fraction: float = 0.03
    """Learning rate at the end of the cosine decay, as a fraction of the highest. 1: constant."""
    content: float = 10.0
    """Weight of the L1 loss between LAB planes (Eq. 5)."""
    perceptual: float = 0.0
    """Weight of the L1 loss between VGG features (Eq. 6); 5 in the paper."""
    adversarial: float = 0.0
    """Weight of the relativistic adversarial loss (Eq. 7); 1 in the paper."""
    supervision: float = 10.0
    """Weight of the deep supervision at the start; decays linearly to 0 by the middle of the stage."""
    chroma_weight: float = 0.5
    """Automatic batches: ab errors are weighted by 1 + chroma_weight * chroma / 20 of the target. 0: equally."""
    huber_delta: float = 0.0
    """Automatic batches: ab errors below this (CIE units) are squared, as in the Huber loss. 0: L1 (Eq. 5)."""
    degrade: float = 0.0
    """Share of the inputs degraded like scans of old prints (blur, noise, JPEG, fading, grain)."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate"):
            check_at_least(self, name, 1)
        for name in ("epochs", "window", "warmup", "content", "perceptual", "adversarial"):
            check_at_least(self, name, 0)
        for name in ("supervision", "chroma_weight", "huber_delta"):
            check_at_least(self, name, 0)
        for name in ("reference_fraction", "unrelated_fraction", "final_fraction", "degrade"):
            check_fraction(self, name)
        if not 0 < self.learning_rate <= 1:
            raise ValueError(
                f"learning_rate must be above 0 and at most 1, got {self.learning_rate}"
            )
        if self.batch % self.accumulate:
            raise ValueError(
                f"batch must be a multiple of accumulate, got {self.batch} and {self.accumulate}"
            )
        if self.unrelated_fraction and self.batch < 2:
            raise ValueError(
                f"unrelated_fraction needs a batch of at least 2 pictures, got {self.batch}"
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
        """Side in pixels of the smallest picture that the losses can get."""
        smallest = max(1, round(self.size * self.magnification[0]))
        return min(self.window or smallest, smallest)

    @property
    def largest_output(self) -> int:
        """Side in pixels of the largest output grid."""
        return max(1, round(self.size * self.magnification[1]))
