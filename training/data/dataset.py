"""Photos -> training pairs: a gray low-resolution input, its true colours at any magnification."""

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
from training.data.photos import BadPhotoError, Cache, Entry
from training.data.references import Distortion, draw_distortion
from training.teaching import SIZE

BICUBIC = Image.Resampling.BICUBIC
TRIES = 100  # bad photos in a row before giving up


class Batch(NamedTuple):
    """One training batch (a part of it, for one process), sRGB in 0..1."""

    seen: Tensor
    """(B, 3, size, size): what the network sees the L of; degraded, or the same as `low`."""
    low: Tensor
    """(B, 3, size, size): the photo, bicubic, at the input's size."""
    high: Tensor
    """(B, 3, h, w): the truth in the window of the output grid."""
    wide: Tensor
    """(B, 3, 256, 256): the photo as a teacher looks at it; (B, 3, 0, 0) where none is asked."""
    distortion: Distortion
    """Makes the references out of `low`."""
    size: tuple[int, int]
    """The output grid."""
    window: tuple[int, int, int, int]
    """Top, left, height, width in the output grid."""
    working_size: int
    """Of the colour branch."""
    skipped: tuple[str, ...]
    """Bad photos that others stand in for: which and why."""

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("seen", "low", "high", "wide")}
        distortion = Distortion(*(t.to(device) for t in self.distortion))
        return self._replace(**moved, distortion=distortion)


class Pairs(Dataset[Batch]):
    """Batch number (step, part) -> the pictures of this process, by `Plan` and the seed alone."""

    def __init__(
        self, entries: Sequence[Entry], plan: Plan, rank: int = 0, processes: int = 1
    ) -> None:
        self.plan, self.rank, self.processes = plan, rank, processes
        self.photos = Cache(entries, plan.config.cache * 1e9)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """The `part`-th part of a step's batch."""
        step, part = key
        place = self.plan.place(step)
        stage = place.stage
        rng = self.plan.step_rng(step)
        low, high = stage.magnification
        magnification = low * (high / low) ** rng.random()
        target = max(1, round(stage.size * magnification))
        side = min(stage.window or target, target)
        top, left = (int(v) for v in rng.integers(0, target - side + 1, 2))
        working = int(rng.choice(stage.working_sizes)) if stage.working_sizes else stage.size
        count = stage.batch // (stage.accumulate * self.processes)
        start = place.pictures + (part * self.processes + self.rank) * count
        skipped: list[str] = []
        pictures = [
            self._picture(number, target, (top, left, side), place, skipped)
            for number in range(start, start + count)
        ]
        seen, small, truth, wide, distortions = zip(*pictures, strict=True)
        return Batch(
            stack_photos(seen),
            stack_photos(small),
            stack_photos(truth),
            stack_photos(wide),
            Distortion(*(torch.cat(parts) for parts in zip(*distortions, strict=True))),
            (target, target),
            (top, left, side, side),
            working,
            tuple(skipped),
        )

    def some(self, step: int, count: int) -> Tensor:
        """Pictures from this step on as inputs, sRGB (count, 3, size, size), the same in every process."""
        place = self.plan.place(step)
        size, first = place.stage.size, place.pictures
        numbers = range(first, first + count)
        return stack_photos([self._picture(n, size, (0, 0, size), place, [])[1] for n in numbers])

    def _picture(
        self,
        number: int,
        target: int,
        window: tuple[int, int, int],
        place: Place,
        skipped: list[str],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Distortion]:
        stage = place.stage
        rng, generator = self.plan.picture_rng(number)
        top, left, side = window
        crop = crop_random_square(self._photo(number, skipped), rng, target)
        full = crop.resize((target, target), BICUBIC)
        low = np.asarray(full.resize((stage.size, stage.size), BICUBIC))
        truth = np.asarray(full)[top : top + side, left : left + side]
        seen = degrade(low, rng) if rng.random() < stage.degrade else low
        look = SIZE if stage.teaching and place.automatic else 0
        wide = np.asarray(crop.resize((look, look), BICUBIC)) if look else low[:0, :0]
        return seen, low, truth, wide, draw_distortion(1, generator)

    def _photo(self, number: int, skipped: list[str]) -> np.ndarray:
        """The photo whose turn it is; for a bad one the next in the list stands in."""
        index = self.plan.photo(number)
        for offset in range(min(TRIES, self.plan.photos)):
            try:
                return self.photos[(index + offset) % self.plan.photos]
            except BadPhotoError as error:
                skipped.append(str(error))
        raise ValueError(f"{len(skipped)} photos in a row cannot be used; the last: {skipped[-1]}")


class _Keys:
    """(step, part) from `start` to the end, as a sampler."""

    def __init__(self, plan: Plan, start: int) -> None:
        self.plan, self.start = plan, start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for step in range(self.start, self.plan.total):
            for part in range(self.plan.place(step).stage.accumulate):
                yield step, part


def _as_is(batch: Any) -> Any:
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
            collate_fn=_as_is,
            generator=torch.Generator(),  # the global one is left alone
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if workers else None,
        )
    )


def crop_random_square(photo: np.ndarray, rng: np.random.Generator, smallest: int) -> Image.Image:
    """A random square of 60 to 100 % of the short side, not below `smallest`, mirrored half the time."""
    height, width = photo.shape[:2]
    short = min(height, width)
    side = min(short, max(smallest, round(short * rng.uniform(0.6, 1.0))))
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    crop = photo[top : top + side, left : left + side]
    return Image.fromarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


def stack_photos(pictures: Sequence[np.ndarray]) -> Tensor:
    """uint8 (H, W, 3) each -> (B, 3, H, W) in 0..1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
