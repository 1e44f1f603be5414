"""One run of the command line: parse, dispatch, and turn errors into exit codes."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from ..pictures.formats import PictureError
from .args import names_film, parse
from .output import discard_stdout, open_streams
from .paths import CommandError

_SIGNALS = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP


def run(arguments: list[str] | None) -> int:
    """Run one command; a mistake of the user's is one line on stderr and exit code 2."""
    open_streams()
    options = parse(arguments)
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it logs to stderr by itself
    try:
        with _end_like_interrupted():
            return _run_command(options)
    except (CommandError, PictureError) as error:
        print(f"scsnet: error: {error}".replace("\n", " "), file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has gone, as in `scsnet info | head -1`
        discard_stdout()
        return 1


def _run_command(options: argparse.Namespace) -> int:
    # Imported here: each one needs Pillow or torch, and arguments are checked without them.
    if options.command == "colorize" and names_film(options):
        from .film import colorize_films as command
    elif options.command == "colorize":
        from .colorize import colorize as command
    elif options.command == "attention":
        from .attention import attention as command
    else:
        from .info import info as command
    return command(options)


@contextlib.contextmanager
def _end_like_interrupted() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind as Ctrl-C does, so that no temporary file stays."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] != signal.SIG_IGN:  # nohup
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
