"""Photos -> training batches: gray low-resolution inputs, their targets at any magnification, and references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.config.schedule import Place, Plan
from training.data.degradations import degrade
from training.data.photos import BadPhotoError, Cache, Entry, centre_square
from training.data.references import Distortion, draw_distortion

BICUBIC = Image.Resampling.BICUBIC
TRIES = 100
"""Unreadable photos in a row before giving up."""


class Batch(NamedTuple):
    """One training batch (the share of one process in one accumulated part), sRGB in 0..1, float32."""

    input: Tensor
    """(B, 3, size, size): the network's input is its L; `low`, degraded or not."""
    low: Tensor
    """(B, 3, size, size): the photos at the input's size."""
    high: Tensor
    """(B, 3, h, w): the target in the window of the output grid."""
    reference: Tensor
    """(B, 3, size, size): the photos whose elastic copies are the references; `low`, or other photos of the batch."""
    distortion: Distortion
    """Makes the elastic copies of `reference`."""
    size: tuple[int, int]
    """Height and width of the output grid."""
    window: tuple[int, int, int, int]
    """Top, left, height, width in the output grid."""
    skipped: tuple[str, ...]
    """Unreadable photos that were replaced by the next ones, with reasons."""

    def to(self, device: torch.device) -> Batch:
        """Move the tensors to a device, asynchronously from pinned memory."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return self._replace(
            input=move(self.input),
            low=move(self.low),
            high=move(self.high),
            reference=move(self.reference),
            distortion=Distortion(*map(move, self.distortion)),
        )


class Example(NamedTuple):
    """One picture of a batch, sRGB uint8 (H, W, 3); see `Batch`."""

    input: np.ndarray
    low: np.ndarray
    high: np.ndarray
    distortion: Distortion


class Pairs(Dataset[Batch]):
    """Batches by (step, part), of this process's share; a pure function of plan, seed and photos."""

    def __init__(
        self, entries: Sequence[Entry], plan: Plan, rank: int = 0, processes: int = 1
    ) -> None:
        self.plan, self.rank, self.processes = plan, rank, processes
        self.photos = Cache(entries, plan.config.cache * 1e9)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """The `part`-th part of a step's batch.

        Unrelated references: picture n of the whole batch gets the photo of picture n - 1, whatever the number of
        processes and parts.
        """
        step, part = key
        place = self.plan.place(step)
        stage = place.stage
        rng = self.plan.step_rng(step)
        low, high = stage.magnification
        target = max(1, round(stage.size * low * (high / low) ** rng.random()))
        side = min(stage.window or target, target)
        top, left = (int(v) for v in rng.integers(0, target - side + 1, 2))
        count = stage.batch // (stage.accumulate * self.processes)
        first = (part * self.processes + self.rank) * count
        skipped: list[str] = []
        examples = {
            number: self._make_example(number, target, (top, left, side), place, skipped)
            for number in range(first, first + count)
        }
        references = [examples[n].low for n in examples]
        if place.unrelated:
            before = (first - 1) % stage.batch
            if before not in examples:
                other = self._make_example(before, target, (top, left, side), place, skipped)
                references = [other.low, *references[:-1]]
            else:
                references = [references[-1], *references[:-1]]
        inputs, small, targets, distortions = zip(*examples.values(), strict=True)
        return Batch(
            stack_photos(inputs),
            stack_photos(small),
            stack_photos(targets),
            stack_photos(references),
            Distortion(*(torch.cat(parts) for parts in zip(*distortions, strict=True))),
            (target, target),
            (top, left, side, side),
            tuple(skipped),
        )

    def _make_example(
        self,
        number: int,
        target: int,
        window: tuple[int, int, int],
        place: Place,
        skipped: list[str],
    ) -> Example:
        """Picture `number` of the whole batch; target: side of the output grid; window: top, left, side."""
        stage = place.stage
        number += place.pictures
        rng, generator = self.plan.picture_rng(number)
        photo = self._read(number, skipped)
        if self.plan.config.augment:
            full = crop_random_square(photo, rng, target).resize((target, target), BICUBIC)
        else:
            full = centre_square(photo, target)
        low = np.asarray(full.resize((stage.size, stage.size), BICUBIC))
        top, left, side = window
        high = np.asarray(full)[top : top + side, left : left + side]
        gray = degrade(low, rng) if rng.random() < stage.degrade else low
        return Example(gray, low, high, draw_distortion(1, generator))

    def _read(self, number: int, skipped: list[str]) -> np.ndarray:
        """The photo of a picture; an unreadable one is replaced by the next in the list."""
        index = self.plan.photo(number)
        for offset in range(min(TRIES, self.plan.photos)):
            try:
                return self.photos[(index + offset) % self.plan.photos]
            except BadPhotoError as error:
                skipped.append(str(error))
        raise ValueError(f"{len(skipped)} photos in a row cannot be used; the last: {skipped[-1]}")


class _Keys:
    """A sampler of (step, part), from step `start` to the end."""

    def __init__(self, plan: Plan, start: int) -> None:
        self.plan, self.start = plan, start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for step in range(self.start, self.plan.total):
            for part in range(self.plan.place(step).stage.accumulate):
                yield step, part


def _return_unchanged(batch: Any) -> Any:
    return batch


def make_loader(pairs: Pairs, start: int) -> Iterator[Batch]:
    """The batches from step `start` to the end, part by part."""
    workers = pairs.plan.config.workers
    return iter(
        DataLoader(
            pairs,
            batch_size=None,
            sampler=_Keys(pairs.plan, start),
            num_workers=workers,
            collate_fn=_return_unchanged,
            generator=torch.Generator(),  # the global generator stays untouched
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if workers else None,
        )
    )


def crop_random_square(photo: np.ndarray, rng: np.random.Generator, smallest: int) -> Image.Image:
    """A random square of 60 to 100 % of the short side, at least `smallest` pixels, mirrored half of the time."""
    height, width = photo.shape[:2]
    short = min(height, width)
    side = min(short, max(smallest, round(short * rng.uniform(0.6, 1.0))))
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    crop = photo[top : top + side, left : left + side]
    return Image.fromarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


def stack_photos(pictures: Sequence[np.ndarray]) -> Tensor:
    """uint8 (H, W, 3) each -> float32 (B, 3, H, W) in 0..1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
