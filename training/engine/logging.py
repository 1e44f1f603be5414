"""Progress bar, log and trackers of a run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from training.engine.checkpoints import CHECKPOINTS, RunError, describe_last
from training.text import save_text

if TYPE_CHECKING:  # reading a log needs no accelerate
    from accelerate.accelerator import Accelerator

LOG = "log.jsonl"


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a log, except for a last one that is cut off. Raises OSError."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def truncate_log(path: Path, step: int) -> None:
    """Remove the rows after a step, from which the run continues."""
    if path.exists():
        rows = [row for row in read_log(path) if row["step"] <= step]
        save_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_last_figures(path: Path, step: int) -> dict[str, float]:
    """Return step and metrics of the last validation up to a step, or {} if there was none or the log is missing."""
    rows = read_log(path) if path.exists() else []
    found = [row for row in rows if "auto_psnr" in row and row["step"] <= step]
    return found[-1] if found else {}


class Monitor:
    """Collects the loss terms of every step; `flush` checks, prints and logs their means over all processes."""

    def __init__(self, output: Path, accelerator: Accelerator, total: int, start: int) -> None:
        self.output, self.accelerator = output, accelerator
        self.pending: list[tuple[int, dict[str, Tensor]]] = []
        self.skipped: set[str] = set()
        self.pictures, self.began = 0, time.monotonic()
        main = accelerator.is_main_process
        self.bar = tqdm(total=total, initial=start, unit="step", mininterval=1, disable=not main)
        self.log = (output / LOG).open("a", encoding="utf-8") if main else None

    def add(
        self, step: int, terms: dict[str, Tensor], pictures: int, skipped: tuple[str, ...]
    ) -> None:
        """Add the loss terms (scalars) of a step, its number of photos, and the photos that could not be read."""
        self.pending.append((step, terms))
        self.pictures += pictures
        for name in skipped:
            if name not in self.skipped:
                self.skipped.add(name)
                self.bar.write(f"skipped a photo: {name}")
        self.bar.update()

    def flush(self, facts: Mapping[str, float]) -> None:
        """Log the means of the terms since the last call, beside `facts`. Raises RunError for NaN and infinity."""
        if not self.pending:
            return
        collected: dict[str, list[float]] = {}
        for step, terms in self.pending:
            values = torch.stack([term.float().reshape(()) for term in terms.values()])
            for name, value in zip(
                terms, self.accelerator.reduce(values, "mean").tolist(), strict=True
            ):
                if not math.isfinite(value):
                    raise RunError(
                        f"{name} is {value} at step {step}; {describe_last(self.output / CHECKPOINTS)}. Go on from it "
                        "with --resume and a lower --learning-rate or --clip, or with --precision float32"
                    )
                collected.setdefault(name, []).append(value)
        means = {name: sum(values) / len(values) for name, values in collected.items()}
        speed = self.pictures / max(time.monotonic() - self.began, 1e-9)
        row = {"step": self.pending[-1][0], **means, **facts, "pictures_per_second": speed}
        if self.skipped:
            row["skipped_photos"] = len(self.skipped)
        self.bar.set_postfix({name: f"{mean:.4g}" for name, mean in means.items()}, refresh=False)
        self.record(row)
        self.pending.clear()
        self.pictures, self.began = 0, time.monotonic()

    def record(self, row: dict[str, Any]) -> None:
        """Append a row to the log and send it to the trackers."""
        if self.log is not None:
            print(json.dumps(row), file=self.log, flush=True)
        self.accelerator.log({k: v for k, v in row.items() if k != "step"}, step=row["step"])

    def show(self, picture: Path, step: int) -> None:
        """Send a picture to the trackers that take pictures."""
        images = {"validation": np.asarray(Image.open(picture))[None]}
        for tracker in self.accelerator.trackers:
            if hasattr(tracker, "log_images"):
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images(images, step=step, **layout)

    def close(self) -> None:
        """Close the bar and the log."""
        self.bar.close()
        if self.log is not None:
            self.log.close()
