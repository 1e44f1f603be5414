"""Checkpoints: written whole or not at all, the last few kept, read with care."""

from __future__ import annotations

import lzma
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from scsnet.atomic_write import open_atomic

UNREADABLE = (
    *(OSError, RuntimeError, EOFError, ValueError, KeyError, struct.error),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
"""What comes of a file in which any bit may have changed."""
_NAME = re.compile(r"step-(\d{8})\.pt$")


class RunError(RuntimeError):
    """A run cannot go on; the message says why, and what is left. For people, without a traceback."""


def listed(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*.pt") if _NAME.search(path.name))


def last(folder: Path) -> Path | None:
    """The newest checkpoint, or None."""
    return next(iter(reversed(listed(folder))), None)


def describe_last(folder: Path) -> str:
    """A sentence about what is there, for the end of a message."""
    path = last(folder)
    return f"the last good checkpoint is {path}" if path else "there is no checkpoint yet"


def _reason(error: BaseException) -> str:
    """The disk's own words where torch hides them behind its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return str(cause or error)


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of a step, then remove all but the `keep` newest.

    Errors: RunError where it cannot be written; the older checkpoints stay.
    """
    path = folder / f"step-{step:08}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open_atomic(path) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise RunError(
            f"{path} cannot be written: {_reason(error)}; {describe_last(folder)}"
        ) from error
    for old in listed(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def _check(path: Path) -> None:
    """Compare the checksums in the file, which torch writes but does not read."""
    with zipfile.ZipFile(path) as archive:
        if bad := archive.testzip():
            raise zipfile.BadZipFile(f"{bad} in it is damaged")


def load(path: Path, kind: str = "scsnet-training-2") -> dict[str, Any]:
    """The state in a checkpoint of a kind, on the CPU. Errors: RunError for a file that is not one, or damaged."""
    try:
        _check(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        older = [p for p in listed(path.parent) if p != path]
        advice = f"; remove it to go on from {older[-1]}" if older else ""
        raise RunError(f"{path} cannot be read: {reason}{advice}") from error
    if not isinstance(state, dict) or state.get("format") != kind:
        raise RunError(f"{path} is no checkpoint of this trainer")
    return state
