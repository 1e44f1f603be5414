"""Estimate the time and memory of a run from its data and a few steps of each stage."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import numpy as np
import psutil
import torch

from training.config import TrainConfig
from training.config.schedule import Schedule
from training.data.dataset import TrainingPairs
from training.data.photos import BadPhotoError, find_photos, read_photo, select_evenly
from training.engine.loop import make_accelerator
from training.engine.step import Trainer

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows
    resource = None

SAMPLE = 50  # photos


def describe_data(config: TrainConfig) -> Iterator[str]:
    """Yield lines about the photos: number, sizes, unreadable ones among a sample. Raises as `find_photos`."""
    for name, sources in (("data", config.data), ("validation", config.validation)):
        if not sources:
            continue
        entries = find_photos(sources)
        some = select_evenly(entries, SAMPLE)
        sides, bad = [], []
        for entry in some:
            try:
                sides.append(min(read_photo(entry).shape[:2]))
            except BadPhotoError as error:
                bad.append(str(error))
        yield f"{name}: {len(entries)} photos; of {len(some)} looked at {len(bad)} are bad"
        yield from (f"  {reason}" for reason in bad[:5])
        if sides:
            yield f"  short sides {min(sides)} to {max(sides)} px, half of them {int(np.median(sides))} or more"
            needed = max(stage.largest_output for stage in config.stages)
            small = sum(side < needed for side in sides)
            if name == "data" and small:
                yield f"  {small / len(sides):.0%} are smaller than the largest output ({needed} px) and will be enlarged"


def peak_memory(device: torch.device) -> float:
    """Return the peak memory since the start in GB: of the GPU if there is one, otherwise of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if resource is None:
        return float(psutil.Process().memory_info().peak_wset) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def measure(config: TrainConfig) -> Iterator[str]:
    """Yield lines about time and memory, measured on a few steps of each stage."""
    accelerator = make_accelerator(config, trackers=False)
    entries = find_photos(config.data)
    schedule = Schedule(config, len(entries))
    trainer = Trainer(config, schedule, accelerator)
    pairs = TrainingPairs(entries, schedule)
    total, before = 0.0, 0
    for number, steps in enumerate(schedule.steps, 1):
        stage = schedule.at(before).stage
        time_step(trainer, pairs, before)  # memory is fetched, kernels are chosen
        kinds = kinds_of_steps(schedule, before, steps)
        each = sum(share * time_step(trainer, pairs, step) for step, share in kinds)
        total += each * steps
        before += steps
        yield (
            f"stage {number}: {steps} steps of {each:.2f} s ({stage.size} px, batch {stage.batch}), "
            f"{format_seconds(each * steps)}; at most {peak_memory(accelerator.device):.1f} GB so far"
        )
    checkpoint = (
        sum(p.numel() for p in trainer.model.parameters())
        * 4
        * (3 + (trainer.averaged is not None))
    )
    yield (
        f"in all {format_seconds(total)} on {accelerator.device}, without validations; photos kept in memory take up to "
        f"{config.cache:g} GB more; checkpoints of {checkpoint / 1e6:.0f} MB, {config.keep} kept"
    )


def kinds_of_steps(schedule: Schedule, first: int, steps: int) -> list[tuple[int, float]]:
    """Return an automatic and a referential step of a stage, each with its share of the steps."""
    some = range(first, first + min(steps, 1000))
    kinds: dict[bool, list[int]] = {}
    for step in some:
        kinds.setdefault(schedule.at(step).automatic, []).append(step)
    # The second of a kind: photos of the stage's very first step are in memory by now.
    return [(found[min(1, len(found) - 1)], len(found) / len(some)) for found in kinds.values()]


def time_step(trainer: Trainer, pairs: TrainingPairs, step: int) -> float:
    """Return the seconds of one step, including reading its photos."""
    trainer.step = step
    began = time.perf_counter()
    parts = range(trainer.schedule.at(step).stage.accumulate)
    trainer.advance(iter([pairs[step, part] for part in parts]))
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def format_seconds(seconds: float) -> str:
    """Format a duration."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def disable_output(config: TrainConfig) -> TrainConfig:
    """Return the config of a run that writes no files."""
    return replace(config, output="")
