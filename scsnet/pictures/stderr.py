"""Capture what C libraries print to stderr."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

_STDERR = 2


@contextlib.contextmanager
def capture_stderr() -> Iterator[list[str]]:
    """Collect the lines written to file descriptor 2 inside the block; the list is filled when the block ends.

    libtiff prints what is wrong with a file; the caller turns it into one line. Not safe with threads: the
    descriptor belongs to the whole process, so the caller holds a lock. Captures nothing where the program
    has no stderr or no folder for temporary files.
    """
    lines: list[str] = []
    with contextlib.ExitStack() as stack:
        try:
            before = os.dup(_STDERR)
            stack.callback(os.close, before)
            file = stack.enter_context(tempfile.TemporaryFile())
        except OSError:
            yield lines
            return
        os.dup2(file.fileno(), _STDERR)
        try:
            yield lines
        finally:
            os.dup2(before, _STDERR)
            file.seek(0)
            lines += file.read(100_000).decode(errors="replace").splitlines()
