"""Estimate the time and memory of a run from its data and a few steps of each stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import psutil
import torch
from tqdm import tqdm

from training.config import TrainConfig
from training.config.schedule import Schedule
from training.data.dataset import TrainingPairs
from training.data.photos import BadPhotoError, find_photos, read_photo, select_evenly
from training.engine.loop import make_accelerator
from training.engine.step import Trainer

SAMPLE = 50  # photos whose sizes are looked at


def describe_data(config: TrainConfig) -> Iterator[str]:
    """Yield lines about the photos: number, sizes, and unreadable ones in a sample. Raises the errors of `find_photos`."""
    for name, sources in (("data", config.data), ("validation", config.validation)):
        if not sources:
            continue
        entries = find_photos(sources)
        sample = select_evenly(entries, SAMPLE)
        sides, bad = [], []
        for entry in sample:
            try:
                sides.append(min(read_photo(entry).shape[:2]))
            except BadPhotoError as error:
                bad.append(str(error))
        yield f"{name}: {len(entries)} photos; of {len(sample)} looked at {len(bad)} are bad"
        yield from (f"  {reason}" for reason in bad[:5])
        if sides:
            yield f"  short sides {min(sides)} to {max(sides)} px, half of them {int(np.median(sides))} or more"
            needed = max(stage.largest_output for stage in config.stages)
            small = sum(side < needed for side in sides)
            if name == "data" and small:
                yield f"  {small / len(sides):.0%} are smaller than the largest output ({needed} px) and will be enlarged"


def measure(config: TrainConfig) -> Iterator[str]:
    """Yield lines about time and memory, measured on a few steps of each stage. Writes no files."""
    accelerator = make_accelerator(replace(config, output="", trackers=()))
    device = accelerator.device
    entries = find_photos(config.data)
    schedule = Schedule(config, len(entries))
    trainer = Trainer(config, schedule, accelerator)
    pairs = TrainingPairs(entries, schedule)
    total, first = 0.0, 0
    for number, steps in enumerate(schedule.steps, 1):
        stage = schedule.at(first).stage
        time_step(trainer, pairs, first)  # warm-up
        kinds = kinds_of_steps(schedule, first, steps)
        seconds = sum(share * time_step(trainer, pairs, step) for step, share in kinds)
        total += seconds * steps
        first += steps
        # Freed memory is kept, by malloc (training.engine.malloc) and on a GPU by PyTorch: what is held is the peak.
        on_gpu = device.type == "cuda"
        held = torch.cuda.max_memory_allocated() if on_gpu else psutil.Process().memory_info().rss
        yield (
            f"stage {number}: {steps} steps of {seconds:.2f} s ({stage.size} px, batch {stage.batch}), "
            f"{tqdm.format_interval(seconds * steps)}; at most {held / 1e9:.1f} GB so far"
        )
    copies = 3 if trainer.averaged is None else 4  # weights, two moments of Adam, moving average
    checkpoint = 4 * copies * sum(p.numel() for p in trainer.model.parameters())
    yield (
        f"in all {tqdm.format_interval(total)} on {device}, without validations; photos kept in memory take up to "
        f"{config.cache:g} GB more; checkpoints of {checkpoint / 1e6:.0f} MB, {config.keep} kept"
    )


def kinds_of_steps(schedule: Schedule, first: int, steps: int) -> list[tuple[int, float]]:
    """Return an automatic and a referential step of the stage that begins at `first`, each with its share of the steps."""
    some = range(first, first + min(steps, 1000))
    kinds: dict[bool, list[int]] = {}
    for step in some:
        kinds.setdefault(schedule.at(step).automatic, []).append(step)
    # The second of a kind: the photos of the first step have been read by the warm-up.
    return [(found[min(1, len(found) - 1)], len(found) / len(some)) for found in kinds.values()]


def time_step(trainer: Trainer, pairs: TrainingPairs, step: int) -> float:
    """Run one step, including reading its photos, and return its seconds."""
    trainer.step = step
    began = time.perf_counter()
    parts = range(trainer.schedule.at(step).stage.accumulate)
    trainer.advance(iter([pairs[step, part] for part in parts]))
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
