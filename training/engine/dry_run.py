"""Estimate the time and memory of a run from a few steps of each stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import psutil
import torch
from tqdm import tqdm

from training.config import TrainConfig
from training.config.schedule import Schedule
from training.data.dataset import TrainingPairs
from training.data.photos import find_photos
from training.engine.loop import make_accelerator
from training.engine.step import Trainer

STEPS = 4  # that are measured in each stage, after one to warm up


def estimate(config: TrainConfig) -> Iterator[str]:
    """Yield lines about the time and memory that a run needs. Writes no files."""
    accelerator = make_accelerator(replace(config, output="", trackers=()))
    device = accelerator.device
    entries = find_photos(config.data)
    schedule = Schedule(config, len(entries))
    trainer = Trainer(config, schedule, accelerator)
    pairs = TrainingPairs(entries, schedule)
    total = 0.0
    for number, (stage, steps) in enumerate(zip(config.stages, schedule.steps, strict=True), 1):
        first = sum(schedule.steps[: number - 1])
        time_step(trainer, pairs, first)
        measured = range(first + 1, first + 1 + STEPS) if steps > STEPS else range(first, first + 1)
        seconds = sum(time_step(trainer, pairs, step) for step in measured) / len(measured)
        total += seconds * steps
        # Freed memory is kept, by malloc (training.engine.malloc) and on a GPU by PyTorch: what is held is the peak.
        on_gpu = device.type == "cuda"
        held = torch.cuda.max_memory_allocated() if on_gpu else psutil.Process().memory_info().rss
        yield (
            f"stage {number}: {steps} steps of {seconds:.2f} s ({stage.size} px, batch {stage.batch}), "
            f"{tqdm.format_interval(seconds * steps)}; at most {held / 1e9:.1f} GB so far"
        )
    copies = 4 if config.ema else 3  # weights, two moments of Adam, moving average
    checkpoint = 4 * copies * sum(p.numel() for p in trainer.model.parameters())
    yield (
        f"in all {tqdm.format_interval(total)} on {device}, without validations; photos kept in memory take up to "
        f"{config.cache:g} GB more; checkpoints of {checkpoint / 1e6:.0f} MB, {config.keep} kept"
    )


def time_step(trainer: Trainer, pairs: TrainingPairs, step: int) -> float:
    """Run one step, including reading its photos, and return its seconds."""
    trainer.step = step
    began = time.perf_counter()
    parts = range(trainer.schedule.at(step).stage.accumulate)
    trainer.advance(iter([pairs[step, part] for part in parts]))
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
