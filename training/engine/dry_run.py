"""What a run will need, by looking at the data and trying a few steps of each stage."""

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
from training.config.schedule import Plan
from training.data.dataset import Pairs
from training.data.photos import BadPhotoError, find_photos, read_photo, select_evenly
from training.engine.loop import make_accelerator
from training.engine.step import Trainer

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows
    resource = None

LOOKED_AT = 50  # photos


def describe_data(config: TrainConfig) -> Iterator[str]:
    """Lines about the photos: how many, how large, which of some are bad. Errors: those of `find`."""
    for name, sources in (("data", config.data), ("validation", config.validation)):
        if not sources:
            continue
        entries = find_photos(sources)
        some = select_evenly(entries, LOOKED_AT)
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


def memory(device: torch.device) -> float:
    """The most GB since the start: of the GPU where there is one, of this process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if resource is None:
        return float(psutil.Process().memory_info().peak_wset) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def measure(config: TrainConfig) -> Iterator[str]:
    """Lines about time and memory, from a few steps of each stage on the real data."""
    accelerator = make_accelerator(config, trackers=False)
    entries = find_photos(config.data)
    plan = Plan(config, len(entries))
    trainer = Trainer(config, plan, accelerator)
    pairs = Pairs(entries, plan)
    total, before = 0.0, 0
    for number, steps in enumerate(plan.steps, 1):
        stage = plan.place(before).stage
        taken(trainer, pairs, before)  # memory is fetched, kernels are chosen
        kinds = kinds_of_steps(plan, before, steps)
        each = sum(share * taken(trainer, pairs, step) for step, share in kinds)
        total += each * steps
        before += steps
        yield (
            f"stage {number}: {steps} steps of {each:.2f} s ({stage.size} px, batch {stage.batch}), "
            f"{shown(each * steps)}; at most {memory(accelerator.device):.1f} GB so far"
        )
    checkpoint = (
        sum(p.numel() for p in trainer.generator.parameters())
        * 4
        * (3 + (trainer.averaged is not None))
    )
    yield (
        f"in all {shown(total)} on {accelerator.device}, without validations; photos kept in memory take up to "
        f"{config.cache:g} GB more; checkpoints of {checkpoint / 1e6:.0f} MB, {config.keep} kept"
    )


def kinds_of_steps(plan: Plan, first: int, steps: int) -> list[tuple[int, float]]:
    """An automatic step and one with references of a stage, each with its share of the stage's steps."""
    some = range(first, first + min(steps, 1000))
    kinds: dict[bool, list[int]] = {}
    for step in some:
        kinds.setdefault(plan.place(step).automatic, []).append(step)
    # The second of a kind: photos of the stage's very first step are in memory by now.
    return [(found[min(1, len(found) - 1)], len(found) / len(some)) for found in kinds.values()]


def taken(trainer: Trainer, pairs: Pairs, step: int) -> float:
    """Seconds of one step, its photos included."""
    trainer.step = step
    began = time.perf_counter()
    parts = range(trainer.plan.place(step).stage.accumulate)
    trainer.advance(iter([pairs[step, part] for part in parts]))
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def shown(seconds: float) -> str:
    """For people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def without_files(config: TrainConfig) -> TrainConfig:
    """A config that writes nothing."""
    return replace(config, output="", trackers=())
