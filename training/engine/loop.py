"""Training: `train(config)` reads the photos, runs the steps, validates, and writes checkpoints and weights."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate.accelerator import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils.dataclasses import DistributedDataParallelKwargs, LoggerType

from scsnet import SCSNet, checkpoint
from scsnet.atomic_write import LEFTOVERS, open_atomic
from scsnet.device import cpu_multiplies_bfloat16
from training.config import TrainConfig
from training.config.overrides import CONFIG
from training.config.schedule import Schedule, StepInfo
from training.data.dataset import TrainingPairs, make_loader
from training.data.photos import Entry, find_photos
from training.engine import checkpoints
from training.engine.checkpoints import RunError
from training.engine.distributed import any_process, is_equal_everywhere
from training.engine.logging import LOG, Monitor, read_last_figures, truncate_log
from training.engine.model_card import CARD, PICTURE, WEIGHTS, export
from training.engine.signals import StopRequest
from training.engine.step import Trainer
from training.evaluation.validation import Validation
from training.paths import save_text

CHECKPOINTS = "checkpoints"
BEST = "best.safetensors"
LOCK = "run.lock"


def check_trackers(config: TrainConfig) -> None:
    """Raise ValueError for trackers that accelerate does not know or that are not installed."""
    known = {str(member) for member in LoggerType if str(member) != "all"}
    installed = {str(name) for name in get_available_trackers()}
    for name in config.trackers:
        if name not in known:
            raise ValueError(f"expected a tracker of {', '.join(sorted(known))}, got {name!r}")
        if name not in installed:
            raise ValueError(
                f"the tracker {name!r} is not installed: pip install {name}, or --trackers without it"
            )


def make_accelerator(config: TrainConfig, trackers: bool = True) -> Accelerator:
    """Return the Accelerator of this process, as `accelerate launch` or torchrun set it up."""
    check_trackers(config)
    on_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision="no",  # autocast is applied in TrainingModel: losses stay float32
        log_with=list(config.trackers) if trackers and config.trackers else None,
        project_dir=config.output or None,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    for number, stage in enumerate(config.stages, 1):
        if stage.batch % (stage.accumulate * accelerator.num_processes):
            raise ValueError(
                f"stage {number}: batch must be a multiple of accumulate x processes, got "
                f"{stage.batch}, {stage.accumulate} and {accelerator.num_processes}"
            )
    emulated = on_cpu and config.precision == "bf16" and not cpu_multiplies_bfloat16()
    if emulated and accelerator.is_main_process:
        print("This CPU only emulates bfloat16: --precision float32 is faster.")
    return accelerator


def check_folder(output: Path) -> None:
    """Raise RunError for a path that is not a folder or that belongs to something else than a run."""
    if output.exists() and not output.is_dir():
        raise RunError(f"{output} is a file: a run needs a folder")
    if (output / CARD).exists() and not (output / CONFIG).exists():
        raise RunError(f"{output} holds a {CARD} that does not belong to a run: use another folder")


def load_latest(config: TrainConfig, resume: bool) -> dict[str, Any] | None:
    """Return the state of the run's newest checkpoint, or None. Raises RunError."""
    output = Path(config.output)
    newest = checkpoints.last(output / CHECKPOINTS)
    if newest is None:
        return None
    if not resume:
        raise RunError(
            f"{output} holds a run already ({newest.name}): continue it with --resume, or use another folder"
        )
    return checkpoints.load(newest)


def check_changes(config: TrainConfig, state: dict[str, Any], verbose: bool) -> None:
    """Compare the config with the checkpoint's; raise RunError for changes that a run cannot take."""
    before = TrainConfig.from_dict(state["config"])
    for field in fields(config):
        old, new = getattr(before, field.name), getattr(config, field.name)
        if old != new:
            if field.name in ("seed", "network"):
                raise RunError(f"{field.name} cannot change during a run: it was {old}, now {new}")
            if verbose:
                print(f"changed since the checkpoint: {field.name}")


def process_start(pid: str) -> str | None:
    """Return when a process of this machine was started, or None if there is none of this number.

    A restarted container gives its processes the same numbers again: the time tells them apart.
    """
    try:
        return str(psutil.Process(int(pid)).create_time())
    except (ValueError, psutil.NoSuchProcess):
        return None


@contextmanager
def lock_folder(output: Path) -> Iterator[None]:
    """Hold the run's lock file, so that two runs never write into one folder. Raises RunError.

    The lock of a process that has ended, on this machine, is taken over.
    """
    output.mkdir(parents=True, exist_ok=True)
    path, pid = output / LOCK, str(os.getpid())
    owner = f"{socket.gethostname()} {pid} {process_start(pid)}"
    for _ in range(2):
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(owner)
            break
        except FileExistsError:
            host, pid, started = [*path.read_text(encoding="utf-8").split(), "", "", ""][:3]
            if host not in ("", socket.gethostname()) or started == process_start(pid):
                raise RunError(
                    f"{output} is in use by process {pid} on {host}; if that process has ended, remove {path}"
                ) from None
            path.unlink(missing_ok=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def train(
    config: TrainConfig, *, resume: bool = False, on_step: Callable[[int], Any] | None = None
) -> Path:
    """Run all steps and return the path of the weights. `on_step` is called with the number of steps done.

    Raises RunError, in which case the last good checkpoint is kept; ValueError and OSError before the first step.
    """
    try:
        accelerator = make_accelerator(config)
        if not accelerator.is_main_process:
            return _train(config, accelerator, resume, on_step)
        check_folder(Path(config.output))
        with lock_folder(Path(config.output)):
            return _train(config, accelerator, resume, on_step)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        folder = Path(config.output, CHECKPOINTS)
        raise RunError(f"the disk is full: {error}; {checkpoints.describe_last(folder)}") from error


def find_training_photos(
    config: TrainConfig, validation: Sequence[Entry], verbose: bool
) -> list[Entry]:
    """Return the training photos, without the pictures that the run itself has written.

    With `verbose`, say what is left out and how many of the validation photos are training photos too.
    """
    output = Path(config.output).resolve()
    entries = find_photos(config.data)
    sources = [Path(source).expanduser().resolve() for source in config.data]
    given = [source for source in sources if output in source.parents]  # chosen by the user
    kept = [
        entry
        for entry in entries
        if not (path := Path(entry.path).resolve()).is_relative_to(output)
        or any(path.is_relative_to(source) for source in given)
    ]
    if verbose and len(kept) < len(entries):
        print(f"left out {len(entries) - len(kept)} pictures of the run itself, in {output}")
    if verbose and (shared := set(kept) & set(validation)):
        print(f"warning: {len(shared)} validation photos are training photos too")
    return kept


def _train(
    config: TrainConfig,
    accelerator: Accelerator,
    resume: bool,
    on_step: Callable[[int], Any] | None,
) -> Path:
    main = accelerator.is_main_process
    output = Path(config.output)
    held_out = find_photos(config.validation) if main else []
    entries = find_training_photos(config, held_out, verbose=main)
    schedule = Schedule(config, len(entries))
    state = load_latest(config, resume)
    if state is not None:
        check_changes(config, state, verbose=main)
    trainer = Trainer(config, schedule, accelerator)
    if state is not None:
        trainer.load_state(state)
        if main and state["photos"] != schedule.photos:
            print(
                f"the checkpoint was trained on {state['photos']} photos, now there are "
                f"{schedule.photos}: their order changes from here on"
            )
    accelerator.wait_for_everyone()
    if main:  # everything has been accepted: only now the folder changes
        for leftover in output.rglob(LEFTOVERS):  # of a process that was killed
            leftover.unlink(missing_ok=True)
        save_text(output / CONFIG, json.dumps(config.to_dict(), indent=2) + "\n")
        truncate_log(output / LOG, trainer.step)
        best = output / BEST
        if best.exists() and (
            not trainer.step or int(checkpoint.read_info(best).card["step"]) > trainer.step
        ):
            best.unlink()  # of steps that are run again
    accelerator.init_trackers(
        "tensorboard",
        init_kwargs={"tensorboard": {"purge_step": trainer.step + 1}} if trainer.step else {},
    )
    validation = None
    if held_out:
        validation = Validation(held_out, config.validation_count)
        for reason in validation.skipped:
            print(f"left out a validation photo: {reason}")
    if main:
        print(
            f"{len(entries)} photos, {schedule.total} steps, {accelerator.num_processes} process(es) "
            f"on {accelerator.device}"
        )
        if trainer.step >= schedule.total:
            print(f"all steps are done: the checkpoint is at step {trainer.step}")
    pairs = TrainingPairs(entries, schedule, accelerator.process_index, accelerator.num_processes)
    monitor = Monitor(output, accelerator, schedule.total, trainer.step)
    try:
        with StopRequest() as stop:
            _run_steps(config, trainer, pairs, monitor, validation, stop, on_step)
        accelerator.wait_for_everyone()  # gloo aborts ranks that still communicate when one exits
    finally:
        monitor.close()
        accelerator.end_training()
    weights = output / WEIGHTS
    if main:
        net, step = choose_result(trainer, output)
        figures = read_last_figures(output / LOG, step)
        export(net, weights, config, step, schedule.photos, figures)
    return weights


def choose_result(trainer: Trainer, output: Path) -> tuple[SCSNet, int]:
    """Return the network to export and its step: the best of the last stage's validations, or the last one."""
    path = output / BEST
    if not path.exists():
        return trainer.result, trainer.step
    step = int(checkpoint.read_info(path).card["step"])
    if step == trainer.step:
        return trainer.result, trainer.step
    if step == 0:
        print("No step was better on the validation photos than the initial weights.")
    print(f"The best validation was at step {step}: its weights are exported, not the last ones.")
    return checkpoint.load(path, dtype=torch.float32), step


def validate(
    trainer: Trainer, validation: Validation, info: StepInfo, monitor: Monitor, output: Path
) -> None:
    """Record the metrics of the current weights, and keep the weights if they are the stage's best.

    Compared is the mean of the PSNR of automatic colours and of those of a photo's own reference.
    """
    step = trainer.step
    picture = output / "pictures" / f"step-{step:08}.png"
    figures = validation.compute(trainer.result, info.stage, picture)
    with open_atomic(output / PICTURE) as file:
        file.write(picture.read_bytes())
    monitor.record({"step": step, **figures})
    monitor.show(picture, step)
    monitor.bar.write(f"step {step}: " + ", ".join(f"{k} {v:g}" for k, v in figures.items()))
    score = (figures["auto_psnr"] + figures["own_psnr"]) / 2
    best = checkpoint.read_info(output / BEST).card if (output / BEST).exists() else {}
    if best.get("stage") != info.number or score > best["score"]:
        card = {"step": step, "stage": info.number, "score": score}
        checkpoint.save(output / BEST, trainer.result, dtype=torch.float32, card=card)


def _run_steps(
    config: TrainConfig,
    trainer: Trainer,
    pairs: TrainingPairs,
    monitor: Monitor,
    validation: Validation | None,
    stop: StopRequest,
    on_step: Callable[[int], Any] | None,
) -> None:
    """Run from the trainer's step to the last one."""
    schedule, output = trainer.schedule, Path(config.output)
    main = trainer.accelerator.is_main_process
    parts = make_loader(pairs, trainer.step)
    if validation is not None and not trainer.step:
        validate(trainer, validation, schedule.at(0), monitor, output)
    while trainer.step < schedule.total:
        info = schedule.at(trainer.step)
        facts = {"stage": info.number, "learning_rate": info.learning_rate}
        terms, skipped = trainer.advance(parts)
        step = trainer.step
        end_of_stage = info.step + 1 == info.steps
        saves = end_of_stage or step % config.save_every == 0
        validates = end_of_stage or step % config.validate_every == 0
        monitor.add(step, terms, info.stage.batch, skipped)
        if saves or validates or step % config.log_every == 0:
            monitor.flush(facts)
        if validates and validation is not None:
            validate(trainer, validation, info, monitor, output)
        if saves:
            _save(trainer, output, config.keep, main)
        if on_step is not None:
            on_step(step)
        if any_process(stop.requested, trainer.device) and step < schedule.total:
            monitor.flush(facts)
            if not saves:
                _save(trainer, output, config.keep, main)
            # torchrun terminates the others when one process ends: not before the checkpoint is written
            trainer.accelerator.wait_for_everyone()
            raise RunError(f"stopped at step {step}; continue with --resume")


def _save(trainer: Trainer, output: Path, keep: int, main: bool) -> None:
    """Write a checkpoint. Raises RunError if the processes' weights differ."""
    if not is_equal_everywhere(trainer.checksum()):
        folder = output / CHECKPOINTS
        raise RunError(
            f"the weights of the processes differ at step {trainer.step}; {checkpoints.describe_last(folder)}"
        )
    if main:
        checkpoints.save(output / CHECKPOINTS, trainer.step, trainer.state(), keep)
