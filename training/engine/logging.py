"""What is seen of a run: progress bar, log.jsonl, trackers. Only the first process has one."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from training.engine.checkpoints import RunError, describe_last
from training.engine.distributed import average_over_processes, is_main_process
from training.paths import save_text

if TYPE_CHECKING:  # reading a log needs no accelerate
    from accelerate.accelerator import Accelerator

LOG = "log.jsonl"


def truncate_log(path: Path, step: int) -> None:
    """Leave out what was logged after a step: the run goes on from there."""
    if not path.exists():
        return
    kept = (json.dumps(row) + "\n" for row in read_log(path) if row["step"] <= step)
    save_text(path, "".join(kept))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, but for one that was being written when the run was killed. Errors: OSError."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


def read_last_figures(path: Path, step: int) -> dict[str, float]:
    """Step and figures of the last validation up to a step; empty where a log has none or is missing."""
    if not path.exists():
        return {}
    found = [row for row in read_log(path) if "auto_psnr" in row and row["step"] <= step]
    return found[-1] if found else {}


class Monitor:
    """Collects the terms of every step; `flush` checks, prints and writes their means."""

    def __init__(self, output: Path, accelerator: Accelerator, total: int, start: int) -> None:
        self.output, self.accelerator = output, accelerator
        self.pending: list[tuple[int, dict[str, Tensor]]] = []
        self.skipped: dict[str, None] = {}
        self.pictures = 0
        self.began = time.monotonic()
        self.smooth: dict[str, float] = {}
        self.bar = tqdm(
            total=total,
            initial=start,
            unit="step",
            mininterval=1,
            smoothing=0.05,
            disable=not is_main_process(),
        )
        self.log = (output / LOG).open("a", encoding="utf-8") if is_main_process() else None

    def add(
        self, step: int, terms: dict[str, Tensor], pictures: int, skipped: tuple[str, ...]
    ) -> None:
        """One step is done."""
        self.pending.append((step, terms))
        self.pictures += pictures
        for name in skipped:
            if name not in self.skipped:
                self.skipped[name] = None
                self.bar.write(f"skipped a photo: {name}")
        self.bar.update()

    def flush(self, facts: Mapping[str, float]) -> None:
        """Write the means since the last time. Errors: RunError for NaN and infinity."""
        if not self.pending:
            return
        sums: dict[str, list[float]] = {}
        for step, terms in self.pending:
            values = average_over_processes(
                torch.stack([t.float().reshape(()) for t in terms.values()])
            ).tolist()
            for name, value in zip(terms, values, strict=True):
                if not math.isfinite(value):
                    folder = self.output / "checkpoints"
                    raise RunError(
                        f"{name} is {value} at step {step}; {describe_last(folder)}. Go on from it with --resume and a "
                        "lower --learning-rate or --clip, or with --precision float32"
                    )
                sums.setdefault(name, []).append(value)
        means = {name: sum(values) / len(values) for name, values in sums.items()}
        elapsed = time.monotonic() - self.began
        row = {
            "step": self.pending[-1][0],
            **means,
            **facts,
            "pictures_per_second": self.pictures / max(elapsed, 1e-9),
        }
        if self.skipped:
            row["skipped_photos"] = len(self.skipped)
        for name, value in means.items():
            self.smooth[name] = 0.8 * self.smooth.get(name, value) + 0.2 * value
        self.bar.set_postfix({k: f"{v:.4g}" for k, v in self.smooth.items()}, refresh=False)
        self.record(row)
        self.pending.clear()
        self.pictures, self.began = 0, time.monotonic()

    def record(self, row: dict[str, Any]) -> None:
        """One line of the log, and the same to the trackers."""
        if self.log is not None:
            self.log.write(json.dumps(row) + "\n")
            self.log.flush()
        self.accelerator.log({k: v for k, v in row.items() if k != "step"}, step=row["step"])

    def show(self, picture: Path, step: int) -> None:
        """A picture for the trackers that take any."""
        for tracker in self.accelerator.trackers:
            if hasattr(tracker, "log_images"):
                import numpy as np
                from PIL import Image  # only where a tracker wants it

                array = np.asarray(Image.open(picture))
                images = array[None] if tracker.name == "tensorboard" else [array]
                options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({"validation": images}, step=step, **options)

    def close(self) -> None:
        """At the end, whatever it was."""
        self.bar.close()
        if self.log is not None:
            self.log.close()
