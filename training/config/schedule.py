"""The schedule: stages, learning rates, kinds of batches, order of photos. Pure functions of the config.

Random numbers have no state: each generator is seeded by the config's seed and the number of a step or picture.
A resumed run therefore continues bit for bit, and any number of processes sees the same batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from training.config.stage import Stage
from training.config.train_config import TrainConfig

_ORDER, _STEP, _PICTURE = range(3)  # kinds of random numbers


def count_spread(number: int, fraction: float) -> int:
    """How many of the first `number` items are chosen where a `fraction` of all is, spread evenly."""
    return math.floor(number * Fraction(fraction).limit_denominator(10_000))


class Mode(NamedTuple):
    """Which parts of the generator a step uses."""

    automatic: bool
    """No references."""
    texture: bool
    """psi_E is evaluated; otherwise F_tex = F_init."""
    supervised: bool
    """The heads of the deep supervision are evaluated."""


@dataclass(frozen=True)
class Place:
    """The position of a step in the run."""

    stage: Stage
    number: int
    """Number of the stage, from 1."""
    step: int
    """Step within the stage, from 0."""
    steps: int
    """Steps of the stage."""
    pictures: int
    """Pictures seen before this step, in all stages."""
    texture_is_trained: bool
    """psi_E was trained before this stage: in the initial weights or an earlier stage."""

    @property
    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine down to `final_fraction`."""
        stage = self.stage
        if self.step < stage.warmup:
            return stage.learning_rate * (self.step + 1) / stage.warmup
        part = (self.step - stage.warmup) / max(1, self.steps - stage.warmup)
        low = stage.final_fraction
        return stage.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * part)))

    @property
    def supervision(self) -> float:
        """Weight of the deep supervision: linear to 0 in the first half of the stage."""
        return self.stage.supervision * max(0.0, 1 - self.step / (0.5 * self.steps))

    @property
    def mode(self) -> Mode:
        """Which parts of the generator are used."""
        return Mode(
            automatic=self.automatic,
            texture=self.stage.trains == "everything" or self.texture_is_trained,
            supervised=self.supervision > 0 and not self.unrelated,
        )

    @property
    def automatic(self) -> bool:
        """Whether this step's batch has no references."""
        fraction = self.stage.reference_fraction
        return count_spread(self.step + 1, fraction) == count_spread(self.step, fraction)

    @property
    def unrelated(self) -> bool:
        """Whether the references of this step's batch show other photos."""
        if self.automatic:
            return False
        number = count_spread(self.step, self.stage.reference_fraction)
        fraction = self.stage.unrelated_fraction
        return count_spread(number + 1, fraction) > count_spread(number, fraction)


class Plan:
    """The schedule of a config on a number of photos."""

    def __init__(self, config: TrainConfig, photos: int) -> None:
        if photos < 1:
            raise ValueError("there are no photos to train on")
        self.config, self.photos = config, photos
        self.steps = [
            max(1, round(stage.epochs * photos / stage.batch)) if stage.epochs else stage.steps
            for stage in config.stages
        ]

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return sum(self.steps)

    def place(self, step: int) -> Place:
        """The position of a step in 0 .. total - 1. Raises: ValueError beyond the last."""
        pictures = 0
        stages = self.config.stages
        for number, (stage, steps) in enumerate(zip(stages, self.steps, strict=True), 1):
            if step < steps:
                trained = bool(self.config.init) or any(
                    earlier.trains == "everything" for earlier in stages[: number - 1]
                )
                return Place(stage, number, step, steps, pictures + step * stage.batch, trained)
            pictures += steps * stage.batch
            step -= steps
        raise ValueError(f"expected a step below {self.total}, got one {step + 1} beyond")

    def photo(self, number: int) -> int:
        """Index of the photo for a picture, counted over the whole run: each photo once per epoch."""
        epoch, position = divmod(number, self.photos)
        return int(_order(self.config.seed, epoch, self.photos)[position])

    def step_rng(self, step: int) -> np.random.Generator:
        """Random numbers shared by the pictures of a step."""
        return np.random.default_rng([self.config.seed, _STEP, step])

    def picture_rng(self, number: int) -> tuple[np.random.Generator, torch.Generator]:
        """Random numbers of one picture."""
        sequence = np.random.SeedSequence([self.config.seed, _PICTURE, number])
        generator = torch.Generator().manual_seed(
            int(sequence.generate_state(1, np.uint64)[0] >> 1)
        )
        return np.random.default_rng(sequence), generator


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, photos: int) -> np.ndarray:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(photos)
