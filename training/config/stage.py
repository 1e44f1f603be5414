"""A part of a training run. Sizes are in pixels of the gray input unless said otherwise; a field's docstring is its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Learns = Literal["everything", "color", "decoder", "reference", "texture"]


def check_at_least(config: object, name: str, low: int) -> None:
    """Errors: ValueError where a field is below `low`."""
    if not getattr(config, name) >= low:  # also false for NaN
        raise ValueError(f"{name} must be at least {low}, got {getattr(config, name)}")


def check_fraction(config: object, name: str) -> None:
    """Errors: ValueError where a field is not."""
    if not 0 < getattr(config, name) <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, got {getattr(config, name)}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a run: what the network is shown and what counts, for a number of steps."""

    steps: int = 1000
    """Steps of the optimizers."""
    epochs: float = 0.0
    """Instead of steps: how often every photo is seen. 0: `steps` counts."""
    batch: int = 16
    """Pictures per step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts that a batch is cut into, one after the other: saves memory, costs nothing else."""
    size: int = 48
    """Side of the gray input."""
    working_sizes: tuple[int, ...] = ()
    """Working sizes of the colour branch to draw from. Empty: the input's own size."""
    magnification: tuple[float, float] = (1.0, 1.0)
    """Range that the magnification of a batch is drawn from."""
    window: int = 0
    """Side of the random window of the output that is decoded and judged. 0: all of the output."""
    texture: bool = True
    """Train psi_E. Otherwise it stays as it is; one that knows nothing is left out: F_tex = F_init, as its blocks start."""
    automatic_every: int = 3
    """Every n-th batch is automatic, the others have references. 1: all automatic, 0: none."""
    reference_every: int = 0
    """Instead: every n-th batch has references, the others are automatic. 0: `automatic_every` counts."""
    strangers_every: int = 0
    """Every n-th of the batches with references has those of other photos; of its ab only the mean counts. 0: none."""
    coherence: float = 0.0
    """Those batches: weight of the difference from the photo's own ab, moved as far as the mean should be. 0: spots go free."""
    learns: Learns = "everything"
    """What changes: everything, phi alone (color), of it only phi_D (decoder) or what automatic pictures never meet,
    phi_E^r and PVCAttn (reference), or psi_E and CPM alone (texture); the rest keeps what it knows."""
    references_anew: bool = False
    """Before its first step phi_E^r and PVCAttn are fitted to what phi_E^s sees by then (training.carrying)."""
    coarse: bool = False
    """Neither phi_D nor CPM run: what a head after SAttn says of ab at quarter size is judged. Twice as fast."""
    head_anew: bool = False
    """Before its first step that head is fitted to say what phi_D and CPM make of the same features. Not: it is untrained."""
    learning_rate: float = 5e-4
    """The highest one, after the warm-up."""
    encoder_rate: float = 1.0
    """Learning rate of phi_E^s, phi_E^r and the first convolutions against that of the rest. 0: they stay as they are."""
    warmup: int = 100
    """Steps of linear warm-up at the start of the stage."""
    final_fraction: float = 0.03
    """Learning rate at the end of the stage's cosine, as a fraction of the highest. 1: constant."""
    content: float = 10.0
    """Weight of the L1 loss between LAB planes (Eq. 5)."""
    perceptual: float = 0.0
    """Weight of the L1 loss between VGG features (Eq. 6); the paper's is 5."""
    adversarial: float = 0.0
    """Weight of the relativistic adversarial loss (Eq. 7); the paper's is 1."""
    supervision: float = 10.0
    """Weight of the deep supervision; it fades to 0 in the first half of the stage."""
    distillation: float = 0.0
    """Weight of the cosine distance between F_s and features of MobileNet."""
    classification: float = 0.0
    """Automatic batches: weight of the cross-entropy of heads that predict classes of colour."""
    teaching: float = 0.0
    """Automatic batches: weight of the difference from the coarse colours that a teacher expects."""
    temperature: float = 1.0
    """Of the teacher: 1 asks for the mean of the plausible colours, less for the likelier ones (annealed mean)."""
    rebalance: float = 0.5
    """Automatic batches: a pixel weighs 1 + rebalance * chroma / 20, against sepia."""
    coldness: float = 0.0
    """Automatic batches: a pixel weighs 1 + coldness * (its green + its blue) / 20: -a and -b where they are above 0."""
    redness: float = 1.0
    """Automatic batches: what a (green to red) weighs against b (blue to yellow), which differs more and is learnt first."""
    stretch: tuple[float, float] = (1.0, 1.0)
    """Automatic batches: what a and b that are asked for are multiplied by; 1 1 asks for the photo's own."""
    softness: float = 0.0
    """Automatic batches: ab differences below this (CIE units) count by their square. 0: L1 (Eq. 5)."""
    degrade: float = 0.0
    """Share of the inputs degraded like real scans (blur, noise, JPEG, fading, toning, grain)."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate"):
            check_at_least(self, name, 1)
        for name in (
            "epochs",
            "window",
            "automatic_every",
            "reference_every",
            "strangers_every",
            "warmup",
            "final_fraction",
        ):
            check_at_least(self, name, 0)
        for name in (
            "content",
            "perceptual",
            "adversarial",
            "supervision",
            "distillation",
            "classification",
            "teaching",
            "coherence",
            "rebalance",
            "coldness",
            "redness",
            "softness",
        ):
            check_at_least(self, name, 0)
        if self.batch % self.accumulate:
            raise ValueError(
                f"batch must be a multiple of accumulate, got {self.batch} and {self.accumulate}"
            )
        if self.strangers_every and self.batch == self.accumulate:
            raise ValueError(
                "strangers_every needs at least two pictures at a time, "
                f"got batch {self.batch} in {self.accumulate} parts"
            )
        if len(self.stretch) != 2 or not all(0 < factor <= 2 for factor in self.stretch):
            raise ValueError(
                f"stretch must be two numbers, above 0 and at most 2, got {self.stretch}"
            )
        if self.size < 8 or self.size % 4:
            raise ValueError(f"size must be a multiple of 4, at least 8, got {self.size}")
        if bad := [s for s in self.working_sizes if s < 8 or s % 4]:
            raise ValueError(f"working_sizes must be multiples of 4, at least 8, got {bad[0]}")
        if (
            len(self.magnification) != 2
            or not 0 < self.magnification[0] <= self.magnification[1] <= 64
        ):
            raise ValueError(
                f"magnification must be two numbers, 0 < low <= high <= 64, got {self.magnification}"
            )
        for name in ("learning_rate", "temperature"):
            check_fraction(self, name)
        if self.learns not in get_args(Learns):
            raise ValueError(f"learns must be one of {get_args(Learns)}, got {self.learns!r}")
        if self.learns == "reference" and self.has_automatic:
            raise ValueError(
                'learns="reference" needs references in every batch: automatic_every 0 or reference_every 1, '
                f"got {self.automatic_every} and {self.reference_every}"
            )
        if self.teaching and self.window:
            raise ValueError(
                f"teaching compares whole pictures: window must be 0, got {self.window}"
            )
        if self.coarse and (self.window or self.perceptual or self.adversarial):
            raise ValueError(
                "coarse makes no picture: window, perceptual and adversarial must be 0"
            )
        if self.coarse and self.learns not in ("everything", "color"):
            raise ValueError(
                f"coarse teaches phi: learns must be everything or color, got {self.learns!r}"
            )
        for name in ("degrade", "encoder_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")

        if self.adversarial and self.smallest_truth < 32:
            raise ValueError(
                "the adversarial loss needs at least 32 pixels of output: size x the lowest "
                f"magnification and window must reach that, got {self.smallest_truth}"
            )

    @property
    def has_automatic(self) -> bool:
        """Whether there are batches without references."""
        return self.reference_every != 1 if self.reference_every else self.automatic_every > 0

    @property
    def trains_texture(self) -> bool:
        """Whether psi_E changes."""
        return self.texture and self.learns in ("everything", "texture")

    @property
    def smallest_truth(self) -> int:
        """Side of the smallest picture that the losses can get."""
        smallest = max(1, round(self.size * self.magnification[0]))
        return min(self.window or smallest, smallest)

    @property
    def largest_output(self) -> int:
        """Side of the largest output grid."""
        return max(1, round(self.size * self.magnification[1]))
