"""What a training run is: plain dataclasses, saved as JSON beside the run. Presets: `training.presets`.

Sizes are in pixels of the gray input unless said otherwise. The docstring of a field is its help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from scsnet import SCSNetConfig

Adversarial = Literal["ralsgan", "paper"]
Precision = Literal["bf16", "float32"]
Learns = Literal["everything", "color", "reference", "texture"]
VGG16 = "hf:timm/vgg16.tv_in1k/model.safetensors"


def at_least(config: object, name: str, low: int) -> None:
    """Errors: ValueError where a field is below `low`."""
    if not getattr(config, name) >= low:  # also false for NaN
        raise ValueError(f"{name} must be at least {low}, got {getattr(config, name)}")


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
    learns: Learns = "everything"
    """What changes: everything, phi alone (color), of it only what automatic pictures never meet, phi_E^r and PVCAttn
    (reference), or psi_E and CPM alone (texture); the rest keeps what it knows."""
    learning_rate: float = 5e-4
    """The highest one, after the warm-up."""
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
    rebalance: float = 0.5
    """Automatic batches: a pixel weighs 1 + rebalance * chroma / 20, against sepia."""
    softness: float = 0.0
    """Automatic batches: ab differences below this (CIE units) count by their square. 0: L1 (Eq. 5)."""
    degrade: float = 0.0
    """Share of the inputs degraded like real scans (blur, noise, JPEG, fading, toning, grain)."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate"):
            at_least(self, name, 1)
        for name in (
            "epochs",
            "window",
            "automatic_every",
            "reference_every",
            "strangers_every",
            "warmup",
            "final_fraction",
        ):
            at_least(self, name, 0)
        for name in (
            "content",
            "perceptual",
            "adversarial",
            "supervision",
            "distillation",
            "classification",
            "rebalance",
            "softness",
        ):
            at_least(self, name, 0)
        if self.batch % self.accumulate:
            raise ValueError(
                f"batch must be a multiple of accumulate, got {self.batch} and {self.accumulate}"
            )
        if self.strangers_every and self.batch == self.accumulate:
            raise ValueError(
                "strangers_every needs at least two pictures at a time, "
                f"got batch {self.batch} in {self.accumulate} parts"
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
        if not 0 < self.learning_rate <= 1:
            raise ValueError(
                f"learning_rate must be above 0 and at most 1, got {self.learning_rate}"
            )
        if self.learns not in get_args(Learns):
            raise ValueError(f"learns must be one of {get_args(Learns)}, got {self.learns!r}")
        if self.learns == "reference" and self.has_automatic:
            raise ValueError(
                'learns="reference" needs references in every batch: automatic_every 0 or reference_every 1, '
                f"got {self.automatic_every} and {self.reference_every}"
            )
        if not 0 <= self.degrade <= 1:
            raise ValueError(f"degrade must be between 0 and 1, got {self.degrade}")

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


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Every choice of a run."""

    data: tuple[str, ...] = ()
    """Photos: folders (searched recursively), lists (.txt, a path per line), shards (.tar)."""
    output: str = ""
    """Folder of the run: config, checkpoints, log, pictures, weights."""
    validation: tuple[str, ...] = ()
    """Photos for the figures and pictures during the run, as for data. Empty: none."""
    init: str = ""
    """Weights to start from: a file, "bundled", or "hf:owner/repo". Empty: a fresh network."""
    network: SCSNetConfig = field(default_factory=SCSNetConfig)
    """What the network is; ignored with init, whose file says it."""
    stages: tuple[Stage, ...] = (Stage(),)
    """The parts of the run, one after the other."""
    siamese: bool = True
    """A fresh network starts with phi_E^r as a copy of phi_E^s, keys as copies of queries."""
    precision: Precision = "bf16"
    """Of the network's arithmetic; losses and weights are float32 always."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Of Adam, both networks."""
    weight_decay: float = 0.0
    """Of Adam, both networks."""
    clip: float = 200.0
    """Largest gradient norm. 0: no limit."""
    ema: float = 0.999
    """Decay of the moving average of the weights, which is what is validated and exported. 0: none."""
    adversarial_form: Adversarial = "ralsgan"
    """Relativistic average least squares, or Eq. 7 as printed, of inverted polarity."""
    discriminator_width: int = 64
    """Channels of the first layer of the 70x70 PatchGAN."""
    perceptual_weights: str = VGG16
    """VGG features: .safetensors (torchvision names) or .npz (blockB_convI), a path or on the Hub."""
    perceptual_float32: bool = True
    """Compute the perceptual loss in float32; otherwise in the network's precision, which is faster."""
    distillation_weights: str = ""
    """MobileNet v1 features (.npz), needed with distillation."""
    seed: int = 0
    """Of everything random; equal seeds and configs give equal runs."""
    workers: int = 0
    """Processes that read photos, per training process. 0: read between the steps."""
    cache: float = 2.0
    """Decoded photos kept in memory, GB per reading process."""
    log_every: int = 20
    """Steps between lines of the log; losses are checked for NaN as often."""
    save_every: int = 250
    """Steps between checkpoints."""
    keep: int = 3
    """Checkpoints kept, the newest ones."""
    validate_every: int = 1000
    """Steps between validations."""
    validation_count: int = 48
    """Photos of a validation."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """Of accelerate: tensorboard, wandb, trackio, mlflow, ..."""

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("stages must not be empty")
        for name in ("log_every", "save_every", "keep", "validate_every", "validation_count"):
            at_least(self, name, 1)
        for name in ("weight_decay", "clip", "workers", "cache", "seed"):
            at_least(self, name, 0)
        at_least(self, "discriminator_width", 4)
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, got {self.ema}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers, at least 0 and below 1, got {self.betas}")
        for name, choices in (
            ("precision", ("bf16", "float32")),
            ("adversarial_form", ("ralsgan", "paper")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        if not self.distillation_weights and any(stage.distillation for stage in self.stages):
            raise ValueError(
                "distillation needs distillation_weights, the file with MobileNet's features"
            )
        if self.network.head == "pixel_shuffle" and any(
            s.magnification != (4, 4) for s in self.stages
        ):
            raise ValueError('head="pixel_shuffle" magnifies by 4 only: magnification must be 4 4')

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`, also after JSON; ValueError on unknown or missing fields."""
        stages = tuple(_build(Stage, stage) for stage in values.get("stages", ()))
        network = SCSNetConfig.from_dict(values.get("network"))
        return _build(cls, {**values, "stages": stages, "network": network})


def _build(cls: type, values: Mapping[str, Any]) -> Any:
    known = {f.name for f in fields(cls)}
    if unknown := sorted(set(values) - known):
        raise ValueError(
            f"{cls.__name__} has no field {unknown[0]!r}, it has {', '.join(sorted(known))}"
        )
    if missing := sorted(known - set(values)):
        raise ValueError(f"{cls.__name__} lacks the field {missing[0]!r}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
