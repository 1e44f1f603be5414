"""What a training run is: its options, stages, presets and schedule."""

from .stage import Stage
from .train_config import TrainConfig

__all__ = ["Stage", "TrainConfig"]
