"""When what happens: steps, learning rates, which photo is whose turn. Pure functions of the config.

Nothing random has a state: everything is drawn from the seed, the step and the picture's number. So a
run that was killed goes on as if it had not been, and two processes see what one would have seen.
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

_ORDER, _STEP, _PICTURE = range(3)  # kinds of randomness


class Mode(NamedTuple):
    """Which parts of the generator a step uses."""

    automatic: bool
    """No references."""
    strange: bool
    """The references are of other photos."""
    texture: bool
    """psi_E is used."""
    supervised: bool
    """The heads of the deep supervision are used."""
    distilled: bool
    """The head of the distillation is used."""
    classified: bool
    """The heads that predict classes of colour are used."""
    coarse: bool
    """Neither phi_D nor CPM is used."""


@dataclass(frozen=True)
class Place:
    """Where in the run a step is."""

    stage: Stage
    number: int
    """Of the stage, from 1."""
    step: int
    """Within the stage, from 0."""
    steps: int
    """Of the stage."""
    pictures: int
    """Pictures seen before this step, in all stages."""
    textured: bool
    """psi_E knows something: it is in the weights that the run starts from, or learned in an earlier stage."""

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
        """Weight of the deep supervision: down to 0 in the first half of the stage."""
        return self.stage.supervision * max(0.0, 1 - self.step / (0.5 * self.steps))

    @property
    def mode(self) -> Mode:
        """Which parts of the generator are used."""
        stage = self.stage
        return Mode(
            automatic=self.automatic,
            strange=self.strange,
            texture=stage.texture or self.textured,
            supervised=self.supervision > 0 and not self.strange,
            distilled=stage.distillation > 0,
            classified=self.automatic and stage.classification > 0,
            coarse=stage.coarse,
        )

    @property
    def automatic(self) -> bool:
        """Whether the batch of this step has no references."""
        if self.stage.reference_every:
            return self.step % self.stage.reference_every != 0
        every = self.stage.automatic_every
        return every > 0 and self.step % every == 0

    @property
    def strange(self) -> bool:
        """Whether the references of this step's batch are of other photos."""
        stage = self.stage
        if self.automatic or not stage.strangers_every:
            return False
        if stage.reference_every:
            number = self.step // stage.reference_every
        else:  # all steps before this one but the automatic ones
            every = stage.automatic_every
            number = self.step - (-(-self.step // every) if every else 0)
        return number % stage.strangers_every == stage.strangers_every - 1


class Plan:
    """A config and a number of photos."""

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
        """Where step 0 .. total - 1 is."""
        pictures = 0
        for number, (stage, steps) in enumerate(
            zip(self.config.stages, self.steps, strict=True), 1
        ):
            if step < steps:
                textured = bool(self.config.init) or any(
                    earlier.trains_texture for earlier in self.config.stages[: number - 1]
                )
                return Place(stage, number, step, steps, pictures + step * stage.batch, textured)
            pictures += steps * stage.batch
            step -= steps
        raise ValueError(f"the run has {self.total} steps, asked for one {step + 1} beyond")

    def photo(self, number: int) -> int:
        """Which photo is the picture of this number, counted over the whole run: each once per epoch."""
        epoch, position = divmod(number, self.photos)
        return int(_order(self.config.seed, epoch, self.photos)[position])

    def step_rng(self, step: int) -> np.random.Generator:
        """For what a step's pictures share."""
        return np.random.default_rng([self.config.seed, _STEP, step])

    def picture_rng(self, number: int) -> tuple[np.random.Generator, torch.Generator]:
        """For what is a picture's own."""
        sequence = np.random.SeedSequence([self.config.seed, _PICTURE, number])
        generator = torch.Generator().manual_seed(
            int(sequence.generate_state(1, np.uint64)[0] >> 1)
        )
        return np.random.default_rng(sequence), generator


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, photos: int) -> np.ndarray:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(photos)
