"""Stage, learning rate and sampling order of every training step, as pure functions of the configuration.

All randomness is derived from the seed, the step and the number of the photo, so that a resumed run repeats what an
uninterrupted one does, and several processes together see what one process would see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from training.config.stage import Stage
from training.config.train_config import TrainConfig

_ORDER, _STEP, _PHOTO = range(3)  # streams of random numbers


class Mode(NamedTuple):
    """Parts of the network that a step evaluates, and its references."""

    automatic: bool
    """The step has no references."""
    texture: bool
    """psi_E is evaluated; otherwise F_tex = F_init."""
    supervised: bool
    """The heads of the deep supervision are evaluated."""
    masked: bool
    """References are masked."""
    others: bool
    """Some references are other photos."""


@dataclass(frozen=True)
class StepInfo:
    """Position of a step in the run."""

    stage: Stage
    number: int
    """Number of the stage, from 1."""
    step: int
    """Step within the stage, from 0."""
    steps: int
    """Steps of the stage."""
    photos: int
    """Photos used before this step, over all stages."""
    texture_trained: bool
    """psi_E has been trained: in the initial weights or in an earlier stage."""

    @property
    def learning_rate(self) -> float:
        """Linear warm-up, then cosine decay to `final_fraction` of the peak."""
        stage = self.stage
        if self.step < stage.warmup:
            return stage.learning_rate * (self.step + 1) / stage.warmup
        progress = (self.step - stage.warmup) / max(1, self.steps - stage.warmup)
        low = stage.final_fraction
        return stage.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)))

    @property
    def supervision(self) -> float:
        """Weight of the deep supervision, decaying linearly to 0 in the first half of the stage."""
        return self.stage.supervision * max(0.0, 1 - self.step / (0.5 * self.steps))

    @property
    def automatic(self) -> bool:
        """Whether the batch of this step has no references; referential steps are spread evenly."""
        fraction = self.stage.reference_fraction
        return math.floor((self.step + 1) * fraction) == math.floor(self.step * fraction)

    @property
    def mode(self) -> Mode:
        """Parts of the network that this step uses."""
        return Mode(
            automatic=self.automatic,
            texture=self.stage.trains in ("everything", "details") or self.texture_trained,
            supervised=self.supervision > 0,
            masked=self.stage.masks > 0 and not self.automatic,
            others=self.stage.others > 0 and not self.automatic,
        )


class Schedule:
    """Schedule of all steps of a configuration on a number of photos. Raises ValueError without photos."""

    def __init__(self, config: TrainConfig, photos: int) -> None:
        if photos < 1:
            raise ValueError("expected at least one training photo, got none")
        self.config, self.photos = config, photos
        self.steps = [
            max(1, round(stage.epochs * photos / stage.batch)) if stage.epochs else stage.steps
            for stage in config.stages
        ]

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return sum(self.steps)

    def at(self, step: int) -> StepInfo:
        """Return the position of a step in 0..total - 1."""
        photos, remaining = 0, step
        trained = bool(self.config.init)
        for number, (stage, steps) in enumerate(
            zip(self.config.stages, self.steps, strict=True), 1
        ):
            if remaining < steps:
                photos += remaining * stage.batch
                return StepInfo(stage, number, remaining, steps, photos, trained)
            photos += steps * stage.batch
            remaining -= steps
            trained = trained or stage.trains in ("everything", "details")
        raise ValueError(f"expected a step below {self.total}, got {step}")

    def photo(self, number: int) -> int:
        """Return the index of the number-th photo that the run uses."""
        return pick_photo(self.config.seed, number, self.photos)

    def step_rng(self, step: int) -> np.random.Generator:
        """Return the generator for what the photos of a step share."""
        return np.random.default_rng([self.config.seed, _STEP, step])

    def photo_rng(self, number: int) -> tuple[np.random.Generator, torch.Generator]:
        """Return the generators of NumPy and PyTorch for what is particular to the number-th photo of the run."""
        sequence = np.random.SeedSequence([self.config.seed, _PHOTO, number])
        seed = int(sequence.generate_state(1, np.uint64)[0] >> 1)
        return np.random.default_rng(sequence), torch.Generator().manual_seed(seed)


def pick_photo(seed: int, number: int, photos: int) -> int:
    """Return the index of the number-th photo that a run uses: each once per epoch, in random order."""
    epoch, position = divmod(number, photos)
    return int(_permute_photos(seed, epoch, photos)[position])


@lru_cache(maxsize=2)
def _permute_photos(seed: int, epoch: int, photos: int) -> np.ndarray:
    """Return the order of the photos in an epoch, int64 (photos,)."""
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(photos)
