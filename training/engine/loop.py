"""The training loop: `train(config)` runs the steps, validates, and writes checkpoints and weights."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate.accelerator import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils.dataclasses import DistributedDataParallelKwargs
from filelock import FileLock, Timeout

from scsnet import SCSNet, checkpoint
from scsnet.atomic_write import LEFTOVERS, open_atomic
from scsnet.device import cpu_multiplies_bfloat16
from training.config import TrainConfig
from training.config.overrides import CONFIG
from training.config.schedule import Schedule, StepInfo
from training.data.dataset import TrainingPairs, make_loader
from training.data.photos import Entry, find_photos
from training.engine import checkpoints
from training.engine.checkpoints import CHECKPOINTS, RunError
from training.engine.logging import LOG, Monitor, read_last_figures, truncate_log
from training.engine.model_card import CARD, PICTURE, WEIGHTS, export
from training.engine.step import Trainer
from training.evaluation.validation import Validation
from training.text import save_text

BEST = "best.safetensors"
LOCK = "run.lock"
OnStep = Callable[[int], Any]


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Return the Accelerator of this process, as `accelerate launch` or torchrun set it up.

    Raises ValueError for trackers that are unknown or not installed, and for batches that the processes cannot share.
    """
    on_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision="no",  # autocast is applied in TrainingModel: losses stay float32
        log_with=list(config.trackers) or None,
        project_dir=config.output or None,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if missing := set(config.trackers) - {str(name) for name in get_available_trackers()}:
        name = min(missing)
        raise ValueError(f"the tracker {name!r} is not installed: pip install {name}")
    for number, stage in enumerate(config.stages, 1):
        if stage.batch % (stage.accumulate * accelerator.num_processes):
            given = f"{stage.batch}, {stage.accumulate} and {accelerator.num_processes}"
            expected = "batch must be a multiple of accumulate x processes"
            raise ValueError(f"stage {number}: {expected}, got {given}")
    emulated = on_cpu and config.precision == "bf16" and not cpu_multiplies_bfloat16()
    if emulated and accelerator.is_main_process:
        print("This CPU only emulates bfloat16: --precision float32 is faster.")
    return accelerator


def load_latest(config: TrainConfig, resume: bool, verbose: bool) -> dict[str, Any] | None:
    """Load the state in the newest checkpoint of a run; None if there is none.

    Raises RunError if `resume` is missing, and if the seed or the network differs from the checkpoint's; other changes are
    printed if `verbose`.
    """
    output = Path(config.output)
    newest = checkpoints.last(output / CHECKPOINTS)
    if newest is None:
        return None
    if not resume:
        advice = "continue it with --resume, or use another folder"
        raise RunError(f"{output} holds a run already ({newest.name}): {advice}")
    state = checkpoints.load(newest)
    before, after = vars(TrainConfig.from_dict(state["config"])), vars(config)
    for name in (name for name in after if before[name] != after[name]):
        if name in ("seed", "network"):
            change = f"it was {before[name]}, now {after[name]}"
            raise RunError(f"{name} cannot change during a run: {change}")
        if verbose:
            print(f"changed since the checkpoint: {name}")
    return state


@contextmanager
def lock_folder(output: Path) -> Iterator[None]:
    """Create a folder and hold its lock file, which the system releases when the process ends.

    Raises RunError if another process holds it, and for a path that is a file or holds a README.md but no run.
    """
    if output.exists() and not output.is_dir():
        raise RunError(f"{output} is a file: a run needs a folder")
    if (output / CARD).exists() and not (output / CONFIG).exists():
        raise RunError(f"{output} holds a {CARD} that does not belong to a run: use another folder")
    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise RunError(f"{output} is in use by another process, which holds {LOCK}") from error


@contextmanager
def catch_stop_signals() -> Iterator[threading.Event]:
    """Yield an event that the first SIGINT or SIGTERM sets; a second one raises KeyboardInterrupt."""
    stop, previous = threading.Event(), {}

    def request_stop(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is threading.main_thread():  # Python allows handlers there only
        previous = {n: signal.signal(n, request_stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def train(config: TrainConfig, *, resume: bool = False, on_step: OnStep | None = None) -> Path:
    """Run all steps and return the path of the weights. `on_step` is called with the number of steps done.

    Raises RunError if the run cannot continue; its checkpoints are kept. Raises ValueError and OSError for a configuration,
    photos or weights that cannot be used, before the first step.
    """
    accelerator = make_accelerator(config)
    with lock_folder(Path(config.output)) if accelerator.is_main_process else nullcontext():
        return _train(config, accelerator, resume, on_step)


def find_training_photos(
    config: TrainConfig, validation: Sequence[Entry], verbose: bool
) -> list[Entry]:
    """Return the training photos without the pictures that the run writes into its folder.

    If `verbose`, print how many these are, and how many of the validation photos are training photos too.
    """
    output = Path(config.output).resolve()
    own = (output, output / "pictures")
    entries = find_photos(config.data)
    kept = [entry for entry in entries if Path(entry.path).parent.resolve() not in own]
    if verbose and len(kept) < len(entries):
        print(f"left out {len(entries) - len(kept)} pictures of the run itself, in {output}")
    if verbose and (shared := set(kept) & set(validation)):
        print(f"warning: {len(shared)} validation photos are training photos too")
    return kept


def _train(
    config: TrainConfig, accelerator: Accelerator, resume: bool, on_step: OnStep | None
) -> Path:
    """Run `train` in one of the processes; the main one holds the lock of the folder."""
    main = accelerator.is_main_process
    output = Path(config.output)
    held_out = find_photos(config.validation) if main else []
    entries = find_training_photos(config, held_out, verbose=main)
    schedule = Schedule(config, len(entries))
    state = load_latest(config, resume, verbose=main)
    trainer = Trainer(config, schedule, accelerator)
    if state is not None:
        trainer.load_state(state)
        if main and state["photos"] != schedule.photos:
            change = f"{state['photos']} photos, now there are {schedule.photos}"
            print(f"the checkpoint was trained on {change}: their order changes from here on")
    accelerator.wait_for_everyone()
    if main:  # everything has been accepted: only now the folder changes
        for leftover in output.rglob(LEFTOVERS):  # of a process that was killed
            leftover.unlink(missing_ok=True)
        save_text(output / CONFIG, json.dumps(config.to_dict(), indent=2) + "\n")
        truncate_log(output / LOG, trainer.step)
        best, done = output / BEST, trainer.step
        if best.exists() and (not done or int(checkpoint.read_info(best).card["step"]) > done):
            best.unlink()  # of steps that are run again
    purge = {"tensorboard": {"purge_step": trainer.step + 1}} if trainer.step else {}
    accelerator.init_trackers("tensorboard", init_kwargs=purge)
    validation = Validation(held_out, config.validation_count) if held_out else None
    if main:
        processes = f"{accelerator.num_processes} process(es) on {accelerator.device}"
        print(f"{len(entries)} photos, {schedule.total} steps, {processes}")
        if trainer.step >= schedule.total:
            print(f"all steps are done: the checkpoint is at step {trainer.step}")
    pairs = TrainingPairs(entries, schedule, accelerator.process_index, accelerator.num_processes)
    monitor = Monitor(output, accelerator, schedule.total, trainer.step)
    try:
        with catch_stop_signals() as stop:
            _run_steps(trainer, pairs, monitor, validation, stop, on_step)
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
    """Return the network to export and its step: the best of the last stage's validations, or the last one without any."""
    path = output / BEST
    step = int(checkpoint.read_info(path).card["step"]) if path.exists() else trainer.step
    if step == trainer.step:
        return trainer.result, step
    if step == 0:
        print("No step was better on the validation photos than the initial weights.")
    print(f"The best validation was at step {step}: its weights are exported, not the last ones.")
    return checkpoint.load(path, dtype=torch.float32), step


def validate(trainer: Trainer, validation: Validation, info: StepInfo, monitor: Monitor) -> None:
    """Record the metrics of the current weights, and save the weights if they are the best of their stage.

    The score is the mean of two PSNRs, of automatic results and of results with a photo's own reference.
    """
    step, output = trainer.step, monitor.output
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
    trainer: Trainer,
    pairs: TrainingPairs,
    monitor: Monitor,
    validation: Validation | None,
    stop: threading.Event,
    on_step: OnStep | None,
) -> None:
    """Run the steps from the trainer's to the last one. Raises RunError when `stop` is set or the run cannot continue."""
    config, schedule, accelerator = trainer.config, trainer.schedule, trainer.accelerator
    parts = make_loader(pairs, trainer.step)
    if validation is not None and not trainer.step:
        validate(trainer, validation, schedule.at(0), monitor)
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
            validate(trainer, validation, info, monitor)
        if saves:
            _save(trainer)
        if on_step is not None:
            on_step(step)
        if stop.is_set():
            accelerator.set_trigger()
        several = accelerator.num_processes > 1  # the check waits for the GPU
        if (several or stop.is_set()) and accelerator.check_trigger() and step < schedule.total:
            monitor.flush(facts)
            if not saves:
                _save(trainer)
            # torchrun terminates the others when one process ends: not before the checkpoint is written
            accelerator.wait_for_everyone()
            raise RunError(f"stopped at step {step}; continue with --resume")


def _save(trainer: Trainer) -> None:
    """Write a checkpoint. Raises RunError if the processes' weights differ, or if it cannot be written."""
    folder = Path(trainer.config.output, CHECKPOINTS)
    if len({*trainer.accelerator.gather(trainer.checksum()).flatten().tolist()}) > 1:
        last = checkpoints.describe_last(folder)
        raise RunError(f"the weights of the processes differ at step {trainer.step}; {last}")
    if trainer.accelerator.is_main_process:
        checkpoints.save(folder, trainer.step, trainer.state(), trainer.config.keep)
