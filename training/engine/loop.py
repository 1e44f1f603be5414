"""One function, `train(config)`: data, steps, checkpoints, figures, weights at the end."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from accelerate.accelerator import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils.dataclasses import DistributedDataParallelKwargs, LoggerType

from scsnet.atomic_write import LEFTOVERS, open_atomic
from scsnet.device import cpu_multiplies_bfloat16
from training.config import TrainConfig
from training.config.schedule import Plan
from training.data.dataset import Pairs, make_loader
from training.data.photos import find_photos
from training.engine import checkpoints
from training.engine.checkpoints import RunError
from training.engine.logging import LOG, Monitor, read_last_figures, truncate_log
from training.engine.signals import Stopping
from training.engine.step import Trainer
from training.evaluation.validation import Validation
from training.export import CARD, PICTURE, WEIGHTS, export
from training.paths import save_text

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"


def make_accelerator(config: TrainConfig, trackers: bool = True) -> Accelerator:
    """Devices and processes as `accelerate launch` or torchrun set them up; CPU with gloo works too."""
    known = {str(member) for member in LoggerType if str(member) != "all"}
    installed = {str(name) for name in get_available_trackers()}
    for name in config.trackers if trackers else ():
        if name not in known:
            raise ValueError(
                f"there is no tracker {name!r}, accelerate has {', '.join(sorted(known))}"
            )
        if name not in installed:
            raise ValueError(
                f"the tracker {name!r} is not installed: pip install {name}, or --trackers without it"
            )
    on_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision="no",  # autocast is ours: losses stay float32
        log_with=list(config.trackers) if trackers and config.trackers else None,
        project_dir=config.output or None,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    for stage in config.stages:
        if stage.batch % (stage.accumulate * accelerator.num_processes):
            raise ValueError(
                f"batch must be a multiple of accumulate x processes, got {stage.batch}, "
                f"{stage.accumulate} and {accelerator.num_processes}"
            )
    emulated = on_cpu and config.precision == "bf16" and not cpu_multiplies_bfloat16()
    if emulated and accelerator.is_main_process:
        print("this CPU does not multiply bfloat16: --precision float32 should be faster here")
    return accelerator


def read_config(output: Path) -> TrainConfig:
    """The config of a run that was started before. Errors: RunError."""
    path = output / CONFIG
    try:
        return TrainConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise RunError(
            f"there is no run in {output}: {path} is missing; start one without --resume"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:  # any JSON may be in it
        raise RunError(f"{path} cannot be used: {error}") from error


def prepare_folder(config: TrainConfig, resume: bool) -> dict[str, Any] | None:
    """Make the folder and write the config; the state to go on from, or None. Errors: RunError."""
    output = Path(config.output)
    if output.exists() and not output.is_dir():
        raise RunError(f"{output} is a file: a run needs a folder")
    if (output / CARD).exists() and not (output / CONFIG).exists():
        raise RunError(f"{output} holds a {CARD} that is not of a run: name another folder")
    newest = checkpoints.last(output / CHECKPOINTS)
    if newest is not None and not resume:
        raise RunError(
            f"{output} holds a run already ({newest.name}): --resume goes on with it, or name another folder"
        )
    state = checkpoints.load(newest) if newest is not None else None
    if state is not None:
        before = TrainConfig.from_dict(state["config"])
        for field in fields(config):
            old, new = getattr(before, field.name), getattr(config, field.name)
            if old != new:
                if field.name in ("seed", "network"):
                    raise RunError(
                        f"{field.name} cannot change in the middle of a run: it was {old}, now {new}"
                    )
                print(f"changed since the checkpoint: {field.name}")
    output.mkdir(parents=True, exist_ok=True)
    for rest in output.rglob(LEFTOVERS):  # of a process that was killed
        rest.unlink(missing_ok=True)
    save_text(output / CONFIG, json.dumps(config.to_dict(), indent=2) + "\n")
    truncate_log(output / LOG, state["step"] if state else 0)
    return state


def train(
    config: TrainConfig, *, resume: bool = False, on_step: Callable[[int], Any] | None = None
) -> Path:
    """Run to the end; returns the weights. `on_step` is called after each step.

    Errors: RunError, with the last good checkpoint kept; ValueError and OSError before the first step.
    """
    try:
        return _train(config, resume, on_step)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        folder = Path(config.output, CHECKPOINTS)
        raise RunError(f"the disk is full: {error}; {checkpoints.describe_last(folder)}") from error


def _train(config: TrainConfig, resume: bool, on_step: Callable[[int], Any] | None) -> Path:
    accelerator = make_accelerator(config)
    main = accelerator.is_main_process
    output = Path(config.output)
    entries = find_photos(config.data)
    plan = Plan(config, len(entries))
    newest = checkpoints.last(output / CHECKPOINTS)
    state = prepare_folder(config, resume) if main else None
    accelerator.wait_for_everyone()
    if not main and resume and newest is not None:
        state = checkpoints.load(newest)
    trainer = Trainer(config, plan, accelerator)
    if state is not None:
        trainer.load_state(state)
        if main and state["photos"] != plan.photos:
            print(
                f"the checkpoint saw {state['photos']} photos, now there are {plan.photos}: another order from here on"
            )
    accelerator.init_trackers(
        "tensorboard",
        init_kwargs={"tensorboard": {"purge_step": trainer.step + 1}} if trainer.step else {},
    )
    validation = None
    if config.validation and main:
        validation = Validation(
            find_photos(config.validation), config.validation_count, config.precision == "bf16"
        )
        for reason in validation.skipped:
            print(f"left out a validation photo: {reason}")
    if main:
        print(
            f"{len(entries)} photos, {plan.total} steps, {accelerator.num_processes} process(es) on {accelerator.device}"
        )
        if trainer.step >= plan.total:
            print(f"nothing is left to do: the checkpoint is at step {trainer.step}")
    pairs = Pairs(entries, plan, accelerator.process_index, accelerator.num_processes)
    monitor = Monitor(output, accelerator, plan.total, trainer.step)
    try:
        with Stopping() as stopping:
            _steps(config, trainer, pairs, monitor, validation, stopping, on_step)
        accelerator.wait_for_everyone()  # who leaves gloo while others still talk may be aborted
    finally:
        monitor.close()
        accelerator.end_training()
    weights = output / WEIGHTS
    if main:
        figures = read_last_figures(output / LOG, trainer.step)
        export(trainer.result, weights, config, trainer.step, plan.photos, figures)
    return weights


def _steps(
    config: TrainConfig,
    trainer: Trainer,
    pairs: Pairs,
    monitor: Monitor,
    validation: Validation | None,
    stopping: Stopping,
    on_step: Callable[[int], Any] | None,
) -> None:
    """From the trainer's step to the last one."""
    plan, output = trainer.plan, Path(config.output)
    main = trainer.accelerator.is_main_process
    parts = make_loader(pairs, trainer.step)
    while trainer.step < plan.total:
        place = plan.place(trainer.step)
        terms, skipped = trainer.advance(parts)
        step = trainer.step
        end_of_stage = place.step + 1 == place.steps
        saves = end_of_stage or step % config.save_every == 0
        validates = end_of_stage or step % config.validate_every == 0
        monitor.add(step, terms, place.stage.batch, skipped)
        if saves or validates or step % config.log_every == 0:
            monitor.flush({"stage": place.number, "learning_rate": place.learning_rate})
        if saves and main:
            checkpoints.save(output / CHECKPOINTS, step, trainer.state(), config.keep)
        if validates and validation is not None:
            picture = output / "pictures" / f"step-{step:08}.png"
            figures = validation.figures(trainer.result, place, picture)
            with open_atomic(output / PICTURE) as file:
                file.write(picture.read_bytes())
            monitor.record({"step": step, **figures})
            monitor.show(picture, step)
            monitor.bar.write(
                f"step {step}: " + ", ".join(f"{k} {v:g}" for k, v in figures.items())
            )
        if on_step is not None:
            on_step(step)
        if stopping.asked and step < plan.total:
            monitor.flush({"stage": place.number, "learning_rate": place.learning_rate})
            if main:
                checkpoints.save(output / CHECKPOINTS, step, trainer.state(), config.keep)
            raise RunError(f"stopped at step {step}; --resume goes on from there")

