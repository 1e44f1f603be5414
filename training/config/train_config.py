"""Configuration of a training run: a dataclass, saved as JSON in the folder of the run.

The docstring of a field is its help text. Complete configurations: `training.config.presets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from scsnet import SCSNetConfig
from training.config.stage import Stage, check_ranges

Adversarial = Literal["ralsgan", "paper"]
Precision = Literal["bf16", "float32"]
VGG16 = "hf:timm/vgg16.tv_in1k/model.safetensors"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of a training run."""

    data: tuple[str, ...] = ()
    """Photos: folders (searched recursively), lists (.txt, a path per line), shards (.tar)."""
    output: str = ""
    """Folder of the run: config, checkpoints, log, pictures, weights."""
    validation: tuple[str, ...] = ()
    """Photos for the metrics and pictures during the run, as for data. Empty: no validation."""
    init: str = ""
    """Initial weights: a file, "bundled" or "hf:owner/repo". Empty: random weights."""
    network: SCSNetConfig = field(default_factory=SCSNetConfig)
    """Architecture; not used with init, whose file contains it."""
    prior: str = ""
    """Semantic prior from train_prior.py, which is not trained: a file or "hf:owner/repo/file". Empty: none, or the one
    in the initial weights."""
    augment: bool = True
    """Random square crops of 60 to 100 % of the short side, mirrored half the time. Otherwise the centre square."""
    stages: tuple[Stage, ...] = (Stage(),)
    """Parts of the run, in order."""
    siamese: bool = True
    """Without init: initialise phi_E^r as a copy of phi_E^s, and keys as copies of queries."""
    precision: Precision = "bf16"
    """Precision of the forward pass; losses and weights are always float32."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Betas of Adam, for the network and the discriminator."""
    weight_decay: float = 0.0
    """Weight decay of Adam, for the network and the discriminator."""
    clip: float = 200.0
    """Norm to which the gradients are clipped. 0: no clipping."""
    ema: float = 0.999
    """Decay of the exponential moving average of the weights, which is validated and exported. 0: no average."""
    adversarial_form: Adversarial = "ralsgan"
    """Adversarial loss: relativistic average least squares (ralsgan), or Eq. 7 as printed (paper)."""
    discriminator_width: int = 64
    """Channels of the first layer of the 70x70 PatchGAN."""
    perceptual_weights: str = VGG16
    """VGG of the perceptual loss: .safetensors with torchvision's names or .npz with blockB_convI, a path or "hf:owner/repo/file"."""
    seed: int = 0
    """Seed of all random numbers; equal seeds and options give equal runs."""
    workers: int = 0
    """Data loading processes per training process. 0: photos are read between the steps."""
    cache: float = 2.0
    """Memory for decoded photos, in GB per data loading process."""
    log_every: int = 20
    """Steps between lines of the log, and between checks of the losses for NaN."""
    save_every: int = 250
    """Steps between checkpoints."""
    keep: int = 3
    """Number of checkpoints that are kept."""
    validate_every: int = 1000
    """Steps between validations; there is one before the first step and one at the end of each stage."""
    validation_count: int = 48
    """Number of photos used for validation, spread evenly over those given."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """Trackers of accelerate: tensorboard, wandb, trackio, mlflow, ..."""

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("stages must not be empty")
        check_ranges(self, "log_every save_every keep validate_every validation_count", 1)
        check_ranges(self, "weight_decay clip workers cache", 0)
        check_ranges(self, "seed", 0, 2**63 - 1)
        check_ranges(self, "discriminator_width", 4)
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, got {self.ema}")
        for name, kind in (("precision", Precision), ("adversarial_form", Adversarial)):
            if (value := getattr(self, name)) not in get_args(kind):
                raise ValueError(f"{name} must be one of {get_args(kind)}, got {value!r}")
        magnifications = {stage.magnification for stage in self.stages}
        if self.network.head == "pixel_shuffle" and magnifications != {(4, 4)}:
            raise ValueError('head="pixel_shuffle" magnifies by 4 only: magnification must be 4 4')

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Build the config from the values of `to_dict`, also after JSON. Missing fields take their defaults.

        Raises ValueError for unknown fields and values out of range; the message names the stage.
        """
        stages = enumerate(values.get("stages", ()), 1)
        parts = {
            "stages": tuple(_build(Stage, stage, f"stage {number}: ") for number, stage in stages),
            "network": SCSNetConfig.from_dict(values.get("network")),
        }
        return _build(cls, {**values, **parts})


def _build(cls: type, values: Mapping[str, Any], place: str = "") -> Any:
    """Return an instance of a dataclass. Raises ValueError for unknown fields and values out of range."""
    known = {f.name for f in fields(cls)}
    try:
        if unknown := sorted(set(values) - known):
            raise ValueError(f"no field {unknown[0]!r}, expected one of {', '.join(sorted(known))}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except ValueError as error:
        raise ValueError(f"{place}{error}") from error
