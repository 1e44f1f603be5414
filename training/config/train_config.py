"""What a training run is: plain dataclasses, saved as JSON beside the run. Presets: `training.config.presets`.

Sizes are in pixels of the gray input unless said otherwise. The docstring of a field is its help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from scsnet import SCSNetConfig
from training.config.stage import Stage, check_at_least

Adversarial = Literal["ralsgan", "paper"]
Precision = Literal["bf16", "float32"]
FILES = {
    "distillation_weights": "MobileNet's features",
    "teacher": "a teacher's weights, made by training/teacher.py",
}
VGG16 = "hf:timm/vgg16.tv_in1k/model.safetensors"


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
    teacher: str = ""
    """Weights of a teacher (training/teacher.py), needed with teaching."""
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
            check_at_least(self, name, 1)
        for name in ("weight_decay", "clip", "workers", "cache", "seed"):
            check_at_least(self, name, 0)
        check_at_least(self, "discriminator_width", 4)
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
        for term, needed in (("distillation", "distillation_weights"), ("teaching", "teacher")):
            if any(getattr(stage, term) for stage in self.stages) and not getattr(self, needed):
                raise ValueError(f"{term} needs {needed}, a file: {FILES[needed]}")
        if self.network.head == "pixel_shuffle" and any(
            s.magnification != (4, 4) for s in self.stages
        ):
            raise ValueError('head="pixel_shuffle" magnifies by 4 only: magnification must be 4 4')

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`, also after JSON; ValueError on unknown fields.

        One that is missing has its default: what a version did that did not have it yet.
        """
        stages = tuple(_build(Stage, stage) for stage in values.get("stages", ()))
        network = SCSNetConfig.from_dict(values.get("network"))
        return _build(cls, {**values, "stages": stages, "network": network})


def _build(cls: type, values: Mapping[str, Any]) -> Any:
    known = {f.name for f in fields(cls)}
    if unknown := sorted(set(values) - known):
        raise ValueError(
            f"{cls.__name__} has no field {unknown[0]!r}, it has {', '.join(sorted(known))}"
        )
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
