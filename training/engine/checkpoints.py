"""Checkpoints: written whole or not at all, the newest few kept, checked when read."""

from __future__ import annotations

import lzma
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from scsnet.atomic_write import open_atomic

CHECKPOINTS = "checkpoints"  # in the folder of a run
FORMAT = "scsnet-training-2"
UNREADABLE = (
    *(OSError, RuntimeError, EOFError, ValueError, KeyError, struct.error),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
"""Exceptions that reading a damaged file raises."""


class RunError(RuntimeError):
    """A run that cannot continue. The message, shown without a traceback, says why and which checkpoint is left."""


def listed(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first."""
    return sorted(folder.glob(f"step-{8 * '[0-9]'}.pt"))


def last(folder: Path) -> Path | None:
    """Return the newest checkpoint of a folder, or None."""
    return max(listed(folder), default=None)


def describe_last(folder: Path) -> str:
    """Return a clause that names the newest checkpoint, for the end of an error message."""
    path = last(folder)
    return f"the last good checkpoint is {path}" if path else "there is no checkpoint yet"


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of a step, then remove all but the `keep` newest.

    Raises RunError if it cannot be written; the older checkpoints are kept.
    """
    path = folder / f"step-{step:08}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open_atomic(path) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        reason: BaseException = error  # torch raises errors of its own in the context of the disk's
        while not isinstance(reason, OSError) and reason.__context__:
            reason = reason.__context__
        raise RunError(f"{path} cannot be written: {reason}; {describe_last(folder)}") from error
    for old in listed(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def load(path: Path, kind: str = FORMAT) -> dict[str, Any]:
    """Load the state in a checkpoint to the CPU. Raises RunError for a damaged file, or one of another format than `kind`."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch writes checksums, but does not compare them
            if bad := archive.testzip():
                raise zipfile.BadZipFile(f"{bad} in it is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        older = [p for p in listed(path.parent) if p != path]
        advice = f"; remove it to go on from {older[-1]}" if older else ""
        raise RunError(f"{path} cannot be read: {reason}{advice}") from error
    if not isinstance(state, dict) or state.get("format") != kind:
        raise RunError(f"{path} is no checkpoint of this trainer")
    return state
