"""What C libraries print on stderr of their own accord, caught."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

_STDERR = 2


@contextlib.contextmanager
def native_messages() -> Iterator[list[str]]:
    """Lines written to file descriptor 2 inside of the block, in the list once it has ended.

    libtiff and libjpeg print what they find wrong with a file; the user gets one line about it, from us.
    """
    lines: list[str] = []
    try:
        before = os.dup(_STDERR)
    except OSError:  # a program without stderr
        yield lines
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), _STDERR)
        try:
            yield lines
        finally:
            os.dup2(before, _STDERR)
            os.close(before)
            caught.seek(0)
            lines += caught.read(100_000).decode(errors="replace").splitlines()
