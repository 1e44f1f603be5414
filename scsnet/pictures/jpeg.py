"""Decode a JPEG and find damage in its scans, of which libjpeg tells Pillow nothing.

The data goes to libjpeg in pieces. As long as a scan lacks pixels, libjpeg gives back the bytes of a block that is not
whole; when the scan has all its pixels, it swallows whatever comes before the next marker. So what it gives back around
the end of each scan tells whether the scan ends with its last pixel. Huffman codes of damaged data stand for another
number of pixels, mostly.
"""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

_END, _SCAN = 0xD9, 0xDA
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}  # arithmetic, lossless, ...
_MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")  # in scan data: none of stuffing and restarts
_PIECE = re.compile(rb"\xff*[^\xff]", re.DOTALL)
_LAST = 8  # bytes at the end of a scan that libjpeg gets one by one; encoders may add less
_ONES = b"\xff\x00"  # a byte of ones, as scans have it: the start of no Huffman code
_AHEAD = 8  # bytes that libjpeg wants to see behind a block

DAMAGED = "the file is damaged, parts may be wrong (its scan data does not end with its last row)"
BLURRED = "the file is truncated, its last scans are missing and it is blurred"
UNENDED = "has no end marker, but all its rows are there"


class _Scans(NamedTuple):
    places: list[tuple[int, int]]
    """first byte of the data of each scan, and the byte behind it"""
    ended: bool
    """whether an end marker follows"""
    exact: bool
    """whether the scans give every coefficient to its last bit"""


class _Decoder:
    """libjpeg, which decodes into an opened picture."""

    def __init__(self, image: Image.Image) -> None:
        image.load_prepare()  # type: ignore[attr-defined]
        ((name, extents, _, args),) = image.tile  # type: ignore[attr-defined]
        self.decoder = Image._getdecoder(image.mode, name, args)
        self.decoder.setimage(image.im, extents)
        self.kept = b""
        self.finished = False

    def feed(self, data: bytes) -> bool:
        """Take more data; return whether libjpeg gives some of it back. Raises OSError for what is no JPEG."""
        if self.finished:
            return False
        self.kept += data
        used, error = self.decoder.decode(self.kept)
        self.finished = used < 0
        if error < 0:
            raise OSError(f"libjpeg fails with {error}")
        self.kept = self.kept[used:]
        return bool(self.kept)

    def is_waiting(self) -> bool:
        """Return whether the scan that was fed lacks pixels."""
        self.feed(_ONES * _AHEAD)
        return any(self.feed(_ONES) for _ in range(3))


def decode_jpeg(image: Image.Image) -> str | None:
    """Decode an opened JPEG file in place; return DAMAGED, BLURRED or UNENDED, None for a sound file.

    Raises OSError as `image.load` for one that lacks rows. Arithmetic coding is not checked.
    """
    data = Path(image.filename).read_bytes()  # type: ignore[attr-defined]
    scans = _find_scans(data)
    found = None if scans is None else _decode(image, data, scans)
    if found in (None, DAMAGED):
        image.load()
        return found
    image.tile = []  # type: ignore[attr-defined]
    return found or None


def _decode(image: Image.Image, data: bytes, scans: _Scans) -> str | None:
    """Decode into the picture; return what is wrong, "" for nothing, None where rows are missing."""
    decoder = _Decoder(image)
    place = 0
    try:
        for start, end in scans.places:
            filled = data[start:end].rstrip(b"\0")  # some cameras fill up
            last = start + len(filled) + filled.endswith(b"\xff")
            first = max(start, last - _LAST)
            first -= data[first - 1] == 0xFF and first > start
            decoder.feed(data[place:first])
            waiting = [decoder.feed(piece) for piece in _PIECE.findall(data[first:last])]
            decoder.feed(data[last:end])
            place = end
            if decoder.is_waiting():
                return DAMAGED if scans.ended or end < scans.places[-1][1] else None
            if not any(waiting):
                return DAMAGED
        decoder.feed(bytes([0xFF, _END]))
    except OSError:  # named by `image.load`
        return None
    finally:
        decoder.decoder.cleanup()
    if not decoder.finished:
        return None
    if scans.ended:
        return "" if scans.exact else BLURRED
    # All rows are there if it does not matter how the data goes on; without more of it libjpeg takes zeros.
    with Image.open(io.BytesIO(data.rstrip(b"\xff") + bytes([0xFF, _END]))) as other:
        other.load()
        same = np.array_equal(np.asarray(other), _to_array(image))
    return UNENDED if same and scans.exact else None


def _to_array(image: Image.Image) -> np.ndarray:
    """Return the pixels decoded so far, without decoding the file again."""
    copy = Image.new(image.mode, image.size)
    copy.im = image.im
    return np.asarray(copy)


def _find_scans(data: bytes) -> _Scans | None:
    """Return the scans of the first picture, None where it has another coding or is no JPEG."""
    places: list[tuple[int, int]] = []
    left: dict[int, set[int]] = {}  # by component of a progressive file
    place, known = 2, False
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker == _END:
            break
        (length,) = struct.unpack_from(">H", data, place + 2)
        segment = data[place + 4 : place + 2 + length]
        place += 2 + length
        if marker in _OTHER_FRAMES:
            return None
        if marker in _SEQUENTIAL:
            known = True
        if marker == _PROGRESSIVE:
            known = True
            left = {component: set(range(64)) for component in segment[6::3]}
        if marker == _SCAN:
            *components, first, last, bits = segment[1:-3:2] + segment[-3:]
            for component in components if bits & 15 == 0 else ():
                left.get(component, set()).difference_update(range(first, last + 1))
            found = _MARKER.search(data, place)
            end = len(data.rstrip(b"\xff")) if found is None else found.start()
            places.append((place, end))
            place = end
    if not known or not places:
        return None
    ended = data[place : place + 2] == bytes([0xFF, _END])
    return _Scans(places, ended, not any(left.values()))
