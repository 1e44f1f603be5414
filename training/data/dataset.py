"""Training pairs: gray low-resolution inputs and their targets at any magnification (Sec. 4.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.config.schedule import Schedule
from training.config.stage import Stage
from training.data.degradations import add_margins, degrade
from training.data.photos import Cache, Entry, centre_square
from training.data.references import Distortion, draw_distortion, draw_mask, keep_undistorted

BICUBIC = Image.Resampling.BICUBIC


class Batch(NamedTuple):
    """The photos of one training step, or the part of them that one process sees; sRGB in 0..1."""

    input: Tensor
    """(B, 3, size, size): the network sees its L; degraded, or equal to `low`."""
    low: Tensor
    """(B, 3, size, size): the photo at the size of the input, bicubic."""
    high: Tensor
    """(B, 3, h, w): the target in the window of the output grid."""
    distortion: Distortion
    """Turns `low` into the references."""
    mask: Tensor
    """(B, 1, size, size): 1 where a reference may be attended to."""
    other: Tensor
    """(B,), bool: the reference is that of the next photo of the batch."""
    enlarged: Tensor
    """(B,), bool: the photo is smaller than the output grid and has no detail to learn from."""
    size: tuple[int, int]
    """Height and width of the output grid."""
    window: tuple[int, int, int, int]
    """Top, left, height and width of the window in the output grid."""
    skipped: tuple[str, ...]
    """Unreadable photos that were replaced by others, each with the reason."""

    def to(self, device: torch.device) -> Batch:
        """Copy the tensors to a device."""

        def move(value: Any) -> Any:
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

        return Batch(*map(move, self))._replace(distortion=Distortion(*map(move, self.distortion)))


class Pair(NamedTuple):
    """What one photo adds to a batch: pictures are uint8 (H, W, 3), the mask is bool (H, W)."""

    input: np.ndarray
    low: np.ndarray
    high: np.ndarray
    distortion: Distortion
    mask: np.ndarray
    other: bool
    enlarged: bool


class TrainingPairs(Dataset[Batch]):
    """Batches by (step, part), determined by the schedule alone; `rank` of `processes` gets its share."""

    def __init__(
        self, entries: Sequence[Entry], schedule: Schedule, rank: int = 0, processes: int = 1
    ) -> None:
        self.schedule, self.rank, self.processes = schedule, rank, processes
        self.photos = Cache(entries, schedule.config.cache * 1e9)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """Return the `part`-th part of the batch of a step."""
        step, part = key
        info = self.schedule.at(step)
        stage = info.stage
        rng = self.schedule.step_rng(step)
        low, high = stage.magnification
        magnification = low * (high / low) ** rng.random()
        target = max(1, round(stage.size * magnification))
        side = min(stage.window or target, target)
        top, left = (int(v) for v in rng.integers(0, target - side + 1, 2))
        count = stage.batch // (stage.accumulate * self.processes)
        start = info.photos + (part * self.processes + self.rank) * count
        skipped: list[str] = []
        window = slice(top, top + side), slice(left, left + side)
        numbers = range(start, start + count)
        pairs = [self._load(number, target, window, stage, skipped) for number in numbers]
        distortions = zip(*(pair.distortion for pair in pairs), strict=True)
        return Batch(
            stack_photos([pair.input for pair in pairs]),
            stack_photos([pair.low for pair in pairs]),
            stack_photos([pair.high for pair in pairs]),
            Distortion(*map(torch.cat, distortions)),
            torch.from_numpy(np.stack([pair.mask for pair in pairs]))[:, None].float(),
            torch.tensor([pair.other for pair in pairs]),
            torch.tensor([pair.enlarged for pair in pairs]),
            (target, target),
            (top, left, side, side),
            tuple(skipped),
        )

    def _load(
        self,
        number: int,
        target: int,
        window: tuple[slice, slice],
        stage: Stage,
        skipped: list[str],
    ) -> Pair:
        """Make the pair of the number-th photo of the run; unreadable photos are replaced and added to `skipped`."""
        rng, generator = self.schedule.photo_rng(number)
        photo = self.photos.read(self.schedule.photo(number), skipped)
        if stage.trains == "details" and min(photo.shape[:2]) < target:  # no detail to learn from
            photo = self.photos.draw(rng, target, skipped)
        augment = self.schedule.config.augment
        square = crop_random_square(photo, rng, target) if augment else centre_square(photo, target)
        full = square.resize((target, target), BICUBIC)
        degrades, has_margins, masked = rng.random(3) < (stage.degrade, stage.degrade, stage.masks)
        other = bool(rng.random() < stage.others)
        if has_margins:
            full = Image.fromarray(add_margins(np.asarray(full), rng)[0])
        low = np.asarray(full.resize((stage.size, stage.size), BICUBIC))
        degraded = degrade(low, rng) if degrades else low
        distortion, mask = draw_distortion(1, generator), np.ones((stage.size, stage.size), bool)
        if masked and not other:
            mask, marks_regions = draw_mask(stage.size, rng)
            distortion = distortion if marks_regions else keep_undistorted(distortion)
        enlarged = min(photo.shape[:2]) < target
        return Pair(degraded, low, np.asarray(full)[window], distortion, mask, other, enlarged)


def _identity(batch: Any) -> Any:
    return batch


def make_loader(pairs: TrainingPairs, start: int) -> Iterator[Batch]:
    """Iterate over the batches from step `start` to the end of the run, part by part."""
    schedule = pairs.schedule
    steps = ((step, schedule.at(step).stage) for step in range(start, schedule.total))
    loader = DataLoader(
        pairs,
        batch_size=None,
        sampler=((step, part) for step, stage in steps for part in range(stage.accumulate)),
        num_workers=schedule.config.workers,
        collate_fn=_identity,
        generator=torch.Generator(),  # the global one is left alone
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)


def crop_random_square(photo: np.ndarray, rng: np.random.Generator, smallest: int) -> Image.Image:
    """Crop a random square of 60 to 100 % of the short side, at least `smallest` pixels, and mirror it half the time."""
    height, width = photo.shape[:2]
    short = min(height, width)
    side = min(short, max(smallest, round(short * rng.uniform(0.6, 1.0))))
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    crop = photo[top : top + side, left : left + side]
    return Image.fromarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


def stack_photos(pictures: Sequence[np.ndarray]) -> Tensor:
    """Stack photos, each uint8 (H, W, 3), to (B, 3, H, W) in 0..1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
