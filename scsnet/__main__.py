"""The command line: `python -m scsnet` and `scsnet`. Arguments in, exit code out.

A user's mistake is one line on stderr and exit code 2; what shows a traceback is a bug of ours.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

_INTERRUPTED = 130  # as a shell reports a program that Ctrl-C ended
_SIGNALS = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP


def main(arguments: list[str] | None = None) -> int:
    """Run one command. SystemExit for --help, --version and arguments that make no sense."""
    try:
        return _explain_errors(arguments)
    except KeyboardInterrupt:  # while importing, too
        print("scsnet: interrupted", file=sys.stderr)
        return _INTERRUPTED


def _explain_errors(arguments: list[str] | None) -> int:
    import logging

    from .cli.args import parse
    from .cli.output import discard_stdout, open_streams
    from .cli.paths import CommandError
    from .pictures.formats import PictureError

    open_streams()
    options = parse(arguments)
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it logs to stderr by itself
    try:
        with _end_like_interrupted():
            return _run(options)
    except (CommandError, PictureError) as error:
        print(f"scsnet: error: {error}".replace("\n", " "), file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has gone, as in `scsnet info | head -1`
        discard_stdout()
        return 1


def _run(options: argparse.Namespace) -> int:
    # Imported here: each one needs Pillow or torch, and arguments are checked without them.
    from .cli.args import names_film

    if options.command == "colorize" and names_film(options):
        from .cli.film import colorize_films as run
    elif options.command == "colorize":
        from .cli.colorize import colorize as run
    elif options.command == "attention":
        from .cli.attention import attention as run
    else:
        from .cli.info import info as run
    return run(options)


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


if __name__ == "__main__":
    sys.exit(main())
