"""The training loop: `train(config)` runs the steps, validates, saves checkpoints and exports the weights."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable
from contextlib import nullcontext
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
from training.data.photos import Entry, find_photos
from training.engine import checkpoints
from training.engine.checkpoints import RunError
from training.engine.distributed import any_process, find_difference
from training.engine.lock import lock_folder
from training.engine.logging import LOG, Monitor, read_figures, truncate_log
from training.engine.signals import Stopping
from training.engine.step import Trainer
from training.evaluation.validation import Validation
from training.export import CARD, PICTURE, WEIGHTS, export, load_averaged_network
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
    """The config of a run that was started before. Raises: RunError."""
    path = output / CONFIG
    try:
        return TrainConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise RunError(
            f"there is no run in {output}: {path} is missing; start one without --resume"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:  # any JSON may be in it
        raise RunError(f"{path} cannot be used: {error}") from error


def check_folder(config: TrainConfig, resume: bool) -> dict[str, Any] | None:
    """The state to resume from, or None for a new run; writes nothing.

    Raises: RunError if the folder holds something else, or the config cannot continue its run.
    """
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
    return state


def prepare_folder(config: TrainConfig, step: int) -> None:
    """Write the config, and remove what a killed process left and what was logged after `step`."""
    output = Path(config.output)
    for rest in output.rglob(LEFTOVERS):  # of a process that was killed
        rest.unlink(missing_ok=True)
    save_text(output / CONFIG, json.dumps(config.to_dict(), indent=2) + "\n")
    truncate_log(output / LOG, step)


def find_training_photos(config: TrainConfig) -> list[Entry]:
    """The photos of `config.data` without those in the run's own folder, in a fixed order."""
    output = Path(config.output).resolve()
    entries = find_photos(config.data)
    if not config.output:
        return entries
    own = [output / "pictures", output / PICTURE]
    return [
        entry
        for entry in entries
        if not any(Path(entry.path).resolve().is_relative_to(path) for path in own)
    ]


def train(
    config: TrainConfig, *, resume: bool = False, on_step: Callable[[int], Any] | None = None
) -> Path:
    """Run to the end; returns the weights. `on_step` is called after each step.

    Raises: RunError, with the last good checkpoint kept; ValueError and OSError before the first step.
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
    if main and not output.exists():
        output.mkdir(parents=True)
    accelerator.wait_for_everyone()
    if not output.is_dir():
        raise RunError(f"{output} is a file: a run needs a folder")
    with lock_folder(output) if main else nullcontext():
        return _train_in_folder(config, resume, on_step, accelerator)


def _train_in_folder(
    config: TrainConfig,
    resume: bool,
    on_step: Callable[[int], Any] | None,
    accelerator: Accelerator,
) -> Path:
    main = accelerator.is_main_process
    output = Path(config.output)
    entries = find_training_photos(config)
    plan = Plan(config, len(entries))
    newest = checkpoints.last(output / CHECKPOINTS)
    state = check_folder(config, resume) if main else None
    accelerator.wait_for_everyone()
    if not main and resume and newest is not None:
        state = checkpoints.load(newest)
    trainer = Trainer(config, plan, accelerator)
    if state is not None:
        trainer.load_state(state)
    validation = None
    if config.validation and main:
        photos = find_photos(config.validation)
        shared = {(e.path, e.offset) for e in photos} & {(e.path, e.offset) for e in entries}
        if shared:
            print(f"warning: {len(shared)} validation photos are training photos too")
        validation = Validation(photos, config.validation_count, config.precision == "bf16")
        for reason in validation.skipped:
            print(f"left out a validation photo: {reason}")
    if main:  # the config is accepted by now
        prepare_folder(config, trainer.step)
        if state is not None and state["photos"] != plan.photos:
            print(
                f"the checkpoint saw {state['photos']} photos, now there are {plan.photos}: "
                "their order changes from here on"
            )
        if trainer.vgg is not None and trainer.vgg.missing:
            print(
                f"warning: {config.perceptual_weights} lacks {', '.join(trainer.vgg.missing)}; "
                "the perceptual loss uses the other layers"
            )
        print(
            f"{len(entries)} photos, {plan.total} steps, {accelerator.num_processes} process(es) on {accelerator.device}"
        )
        if trainer.step >= plan.total:
            print(f"nothing is left to do: the checkpoint is at step {trainer.step}")
    accelerator.wait_for_everyone()
    accelerator.init_trackers(
        "tensorboard",
        init_kwargs={"tensorboard": {"purge_step": trainer.step + 1}} if trainer.step else {},
    )
    pairs = Pairs(entries, plan, accelerator.process_index, accelerator.num_processes)
    monitor = Monitor(output, accelerator, plan.total, trainer.step)
    try:
        with Stopping() as stopping:
            _run_steps(config, trainer, pairs, monitor, validation, stopping, on_step)
        accelerator.wait_for_everyone()  # gloo may abort the others when one process leaves early
    finally:
        monitor.close()
        accelerator.end_training()
    weights = output / WEIGHTS
    if main:
        _export_result(trainer, weights)
    return weights


def _export_result(trainer: Trainer, weights: Path) -> None:
    """Write the weights of the last step, or of the best validation where that was better."""
    config, output = trainer.config, weights.parent
    rows = read_figures(output / LOG, trainer.step)
    step, net, figures = trainer.step, trainer.result, rows[-1] if rows else {}
    best = max(rows, key=lambda row: row["auto_psnr"], default={})
    path = output / CHECKPOINTS / checkpoints.BEST
    if best and best["auto_psnr"] > figures["auto_psnr"] and path.exists():
        state = checkpoints.load(path)
        if state["step"] == best["step"]:
            step, net, figures = state["step"], load_averaged_network(state), best
            print(
                f"the best validation was at step {step}, {best['auto_psnr']:.2f} dB "
                f"(last: {rows[-1]['auto_psnr']:.2f} dB): its weights are the result"
            )
            if not step:
                print("warning: training did not improve on the weights that it started from")
    export(net, weights, config, step, trainer.plan.photos, figures)


def _run_steps(
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
    folder = output / CHECKPOINTS
    rows = read_figures(output / LOG, trainer.step)
    best = max((row["auto_psnr"] for row in rows), default=-math.inf)

    def save() -> None:
        for network in (trainer.generator, trainer.discriminator):
            if network is not None and (name := find_difference(network)):
                raise RunError(f"the processes differ in {name} at step {trainer.step}")
        if main:
            checkpoints.save(folder, trainer.step, trainer.state(), config.keep)

    def validate() -> None:
        nonlocal best
        if validation is None:
            return
        step = trainer.step
        picture = output / "pictures" / f"step-{step:08}.png"
        # the last stage's size and magnification throughout, so that figures can be compared
        figures = validation.figures(trainer.result, plan.place(plan.total - 1), picture)
        if figures["auto_psnr"] > best:
            best = figures["auto_psnr"]
            checkpoints.save_best(folder, trainer.state())
        with open_atomic(output / PICTURE) as file:
            file.write(picture.read_bytes())
        monitor.record({"step": step, **figures})
        monitor.show(picture, step)
        monitor.bar.write(f"step {step}: " + ", ".join(f"{k} {v:g}" for k, v in figures.items()))

    parts = make_loader(pairs, trainer.step)
    if not trainer.step:
        validate()
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
        if saves:
            save()
        if validates:
            validate()
        if on_step is not None:
            on_step(step)
        # all processes stop after the same step, whichever of them got the signal
        if any_process(stopping.requested, trainer.device) and step < plan.total:
            monitor.flush({"stage": place.number, "learning_rate": place.learning_rate})
            save()
            trainer.accelerator.wait_for_everyone()
            raise RunError(f"stopped at step {step}; --resume goes on from there")
