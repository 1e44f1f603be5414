"""A lock file in the folder of a run: only one trainer may write there."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from training.engine.checkpoints import RunError

LOCK = "run.lock"


def _describe_process() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "host": platform.node(),
    }


def _is_stale(owner: dict[str, object]) -> bool:
    """Whether the lock's process was on this host and has ended."""
    if owner.get("host") != platform.node():
        return False
    try:
        return psutil.Process(int(str(owner["pid"]))).create_time() != owner.get("started")
    except psutil.NoSuchProcess:
        return True


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder; the lock of a process that has ended is taken over.

    Raises: RunError if another process holds it.
    """
    path = folder / LOCK
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        owner = None
    except ValueError:  # cut off while it was written
        owner = None
        path.unlink(missing_ok=True)
    if owner is not None:
        if not _is_stale(owner):
            raise RunError(
                f"{folder} is in use by process {owner.get('pid')} on {owner.get('host')}; "
                f"if that process has ended, remove {path}"
            )
        path.unlink(missing_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(_describe_process(), file)
    except FileExistsError as error:
        raise RunError(f"{folder} is in use by a process that has just started") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
