"""Check the scan data of a JPEG, of which libjpeg reports through Pillow neither damage nor missing rows."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

import numpy as np
from PIL import Image

_END = b"\xff\xd9"
_SCAN, _BASELINE = 0xDA, (0xC0, 0xC1)
_MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")  # in scan data: none of stuffing and restarts
_OTHER = b"\x55\x2a" * 16  # bits that no picture goes on with


def read_unended(path: Path) -> Image.Image | None:
    """Return the decoded JPEG that lacks its end marker; None if it lacks rows too."""
    data = path.read_bytes().rstrip(b"\xff")
    image = Image.open(io.BytesIO(data + _END))
    if not _same(np.asarray(image), _decode(data + _OTHER + _END)):
        return None  # it matters how the data goes on
    return image


def is_damaged(path: Path, image: Image.Image) -> bool:
    """Return whether the scan of this decoded JPEG ends before its last row, or goes on behind it.

    Huffman codes of damaged data stand for another number of pixels, mostly. Progressive files are not checked.
    """
    data = path.read_bytes()
    end = _find_end(data)
    if end is None:
        return False
    whole = np.asarray(image)
    scan = data[:end].rstrip(b"\0")  # some cameras fill up
    if not _same(whole, _decode(data[:end] + _OTHER + _END)):
        return True
    return _same(whole, _decode(scan[: -len(_OTHER) // 2] + _OTHER + _END))


def _find_end(data: bytes) -> int | None:
    """Return where the scan of a sequential JPEG of one scan ends, None for other files."""
    place, baseline = 2, False
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        place += 2 + length
        baseline |= marker in _BASELINE
        if marker == _SCAN:
            found = _MARKER.search(data, place)
            is_end = found is not None and found.group()[-1:] == _END[1:]
            return found.start() if found is not None and is_end and baseline else None
    return None


def _decode(data: bytes) -> np.ndarray | None:
    with Image.open(io.BytesIO(data)) as image:
        try:
            return np.asarray(image)
        except OSError:  # of what we put in
            return None


def _same(one: np.ndarray, other: np.ndarray | None) -> bool:
    return other is not None and np.array_equal(one, other)
