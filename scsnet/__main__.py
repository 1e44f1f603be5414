"""The command line: `python -m scsnet` and `scsnet`. Arguments in, exit code out.

A user's mistake is one line on stderr and exit code 2; what shows a traceback is a bug of ours.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from .cli.args import parse
from .cli.paths import CommandError
from .pictures.formats import PictureError

_INTERRUPTED = 130  # as a shell reports a program that Ctrl-C ended


def main(arguments: list[str] | None = None) -> int:
    """Run one command. SystemExit for --help, --version and arguments that make no sense."""
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # file names need not be text this terminal can show
        sys.stdout.reconfigure(errors="backslashreplace")
    options = parse(arguments)
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it logs to stderr by itself
    try:
        with _terminated_like_interrupted():
            return _run(options)
    except (CommandError, PictureError) as error:
        print(f"scsnet: error: {error}".replace("\n", " "), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("scsnet: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `scsnet info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(options: argparse.Namespace) -> int:
    # Imported here: each one needs Pillow or torch, and arguments are checked without them.
    if options.command == "colorize":
        from .cli.colorize import colorize as run
    elif options.command == "attention":
        from .cli.attention import attention as run
    else:
        from .cli.info import info as run
    return run(options)


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does, so that no temporary file stays."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
