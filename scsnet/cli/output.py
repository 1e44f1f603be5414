"""The standard streams, which need not be there or take anything."""

from __future__ import annotations

import io
import os
import sys

from .paths import CommandError


def open_streams() -> None:
    """Give the program the streams it lacks, as under pythonw or `2>&-`, and let stdout show any file name."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def discard_stdout() -> None:
    """Discard what is written to stdout from here on, and what waits in its buffer: it cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_text(text: str) -> None:
    """Print a whole text on stdout. BrokenPipeError where its reader has gone, CommandError where it cannot be written."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise CommandError(f"stdout cannot be written: {error.strerror}") from error
