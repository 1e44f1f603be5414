"""Write PNG of 16 bits per channel, which Pillow does not: its file for a small picture, with size, depth and pixels replaced."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

_SIGNATURE = 8  # bytes
_BAND_BYTES = 2**24
_PAETH = 4


def write_deep_png(file: BinaryIO, samples: np.ndarray, **options: Any) -> None:
    """Write (H, W, 3 or 4) uint16, RGB and alpha. `options` are those of Pillow's PNG: profile, EXIF, texts, dpi."""
    height, width, channels = samples.shape
    frame = io.BytesIO()
    Image.new("RGBA" if channels == 4 else "RGB", (1, 1)).save(frame, "PNG", **options)
    data = frame.getbuffer()
    file.write(data[:_SIGNATURE])
    place = _SIGNATURE
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind = bytes(data[place + 4 : place + 8])
        if kind == b"IHDR":
            color, *rest = data[place + 17 : place + 21]
            _write_chunk(file, kind, struct.pack(">2I5B", width, height, 16, color, *rest))
        elif kind == b"IDAT":
            for part in _compress(samples):
                _write_chunk(file, kind, part)
        else:
            file.write(data[place : place + 12 + length])
        place += 12 + length


def _write_chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data)
    file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _compress(samples: np.ndarray) -> Iterator[bytes]:
    """Yield the zlib stream of the rows, filtered by Paeth's predictor, in parts."""
    height, width, channels = samples.shape
    row, step = width * channels * 2, channels * 2
    stream = zlib.compressobj()
    above = np.zeros((1, step + row), np.uint8)  # a pixel of zeros left of every row
    band = max(1, _BAND_BYTES // row)
    for top in range(0, height, band):
        part = samples[top : top + band].astype(">u2").view(np.uint8).reshape(-1, row)
        rows = np.vstack([above, np.pad(part, ((0, 0), (step, 0)))]).astype(np.int16)
        left, up, corner = rows[1:, :-step], rows[:-1, step:], rows[:-1, :-step]
        from_left, from_up = np.abs(up - corner), np.abs(left - corner)
        from_corner = np.abs(left + up - 2 * corner)
        predicted = np.where(
            (from_left <= from_up) & (from_left <= from_corner),
            left,
            np.where(from_up <= from_corner, up, corner),
        )
        filtered = np.empty((len(part), 1 + row), np.uint8)
        filtered[:, 0] = _PAETH
        filtered[:, 1:] = part - predicted.astype(np.uint8)
        yield stream.compress(filtered.data)
        above = rows[-1:].astype(np.uint8)
    yield stream.flush()
