"""Files that appear under their name whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LEFTOVERS = ".scsnet-*.part"
"""Pattern of the temporary names: what a killed process may leave in a folder."""


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing: made beside `path` under another name, flushed to the disk, renamed over it.

    On any error, Ctrl-C included, the temporary file goes and a file that was there before stays as it
    was. The temporary name is short whatever the name, and different for every writer.
    """
    temporary = name_temporary(path.parent)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def name_temporary(folder: Path) -> Path:
    """Return a new name of a temporary file."""
    return folder / LEFTOVERS.replace("*", secrets.token_hex(8))
