"""The configuration of a training run: plain dataclasses, saved as JSON beside the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from scsnet import SCSNetConfig
from training.config.stage import Stage, check_at_least

Adversarial = Literal["ralsgan", "paper"]
Precision = Literal["bf16", "float32"]
VGG16 = "hf:timm/vgg16.tv_in1k/model.safetensors"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that determines a run."""

    data: tuple[str, ...] = ()
    """Photos to train on: folders (searched recursively), lists (.txt, a path per line), shards (.tar)."""
    output: str = ""
    """Folder of the run: config, checkpoints, log, pictures, weights."""
    validation: tuple[str, ...] = ()
    """Photos for validation during the run, in the same forms as data. Empty: no validation."""
    init: str = ""
    """Weights to start from: a file, "bundled", or "hf:owner/repo". Empty: random weights."""
    network: SCSNetConfig = field(default_factory=SCSNetConfig)
    """The architecture; with init, that of its file."""
    stages: tuple[Stage, ...] = (Stage(),)
    """The parts of the run, one after the other."""
    augment: bool = True
    """Train on random squares of 60 to 100 % of a photo's short side, mirrored half of the time; otherwise on the centre square."""
    siamese: bool = True
    """With random weights: phi_E^r starts as a copy of phi_E^s, and keys as copies of queries."""
    precision: Precision = "bf16"
    """Precision of the network's arithmetic (autocast); weights and losses are always float32."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Coefficients of Adam, for both networks."""
    weight_decay: float = 0.0
    """Weight decay of Adam, for both networks."""
    clip: float = 200.0
    """Largest gradient norm of the generator. 0: no limit."""
    ema: float = 0.999
    """Decay of the moving average of the weights, which is validated and exported. 0: no average."""
    adversarial_form: Adversarial = "ralsgan"
    """Relativistic average least squares, or Eq. 7 as printed ("paper"), whose polarity is inverted."""
    discriminator_width: int = 64
    """Channels of the first layer of the 70x70 PatchGAN."""
    perceptual_weights: str = VGG16
    """VGG features: .safetensors (torchvision names) or .npz (blockB_convI), a path or on the Hub."""
    seed: int = 0
    """Random seed; the same seed and config give the same run."""
    workers: int = 0
    """Processes that read photos, per training process. 0: read between the steps."""
    cache: float = 2.0
    """Decoded photos kept in memory, GB per reading process."""
    log_every: int = 20
    """Steps between lines of the log; losses are checked for NaN as often."""
    save_every: int = 250
    """Steps between checkpoints."""
    keep: int = 3
    """Number of checkpoints kept, the newest ones; the best one is kept besides."""
    validate_every: int = 1000
    """Steps between validations; there is one before the first step and one at the end of each stage."""
    validation_count: int = 48
    """Photos per validation."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """Trackers of accelerate: tensorboard, wandb, trackio, mlflow, ..."""

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("stages must not be empty")
        for name in ("log_every", "save_every", "keep", "validate_every", "validation_count"):
            check_at_least(self, name, 1)
        for name in ("weight_decay", "clip", "workers", "cache", "seed"):
            check_at_least(self, name, 0)
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2^63, got {self.seed}")
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
        if self.network.head == "pixel_shuffle" and any(
            s.magnification != (4, 4) for s in self.stages
        ):
            raise ValueError('head="pixel_shuffle" magnifies by 4 only: magnification must be 4 4')

    def uses(self, loss: str) -> bool:
        """Whether any stage gives this loss a weight above 0."""
        return any(getattr(stage, loss) for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`, also after JSON. Missing fields get their defaults.

        Raises: ValueError for unknown fields and values out of range.
        """
        stages = tuple(
            _build(Stage, stage, f"stage {number}: ")
            for number, stage in enumerate(values.get("stages", ()), 1)
        )
        network = SCSNetConfig.from_dict(values.get("network"))
        return _build(cls, {**values, "stages": stages, "network": network})


def _build(cls: type, values: Mapping[str, Any], prefix: str = "") -> Any:
    known = {f.name for f in fields(cls)}
    if unknown := sorted(set(values) - known):
        raise ValueError(
            f"{prefix}{cls.__name__} has no field {unknown[0]!r}, it has {', '.join(sorted(known))}"
        )
    try:
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from error
