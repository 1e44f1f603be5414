"""Write TIFF: RGB of 8 or 16 bits with alpha, any tags, compressed. Pillow writes directories or compression, not both."""

from __future__ import annotations

import zlib
from typing import Any, BinaryIO

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from .exif import Tags

_HEADER = b"II*\0\x08\0\0\0"  # little-endian, first directory at byte 8
_STRIP_BYTES = 2**20
_SHORT, _LONG, _RATIONAL, _UNDEFINED = 3, 4, 5, 7  # types of values


def write_tiff(
    file: BinaryIO,
    samples: np.ndarray,
    tags: Tags,
    profile: bytes,
    dpi: tuple[float, float] | None,
) -> None:
    """Write (H, W, 3 or 4) uint8 or uint16, RGB and unassociated alpha, with EXIF and other tags of the first directory.

    Deflate in strips of about 1 MiB, horizontal differences (predictor 2).
    """
    height, width, channels = samples.shape
    bits = samples.itemsize * 8
    rows = max(1, _STRIP_BYTES // (width * channels * samples.itemsize))
    starts = range(0, height, rows)
    directory = ImageFileDirectory_v2(_HEADER)
    for tag, value in tags.items():
        directory[tag] = value
    structure: dict[int, tuple[int, Any]] = {
        256: (_LONG, width),
        257: (_LONG, height),
        258: (_SHORT, (bits,) * channels),
        259: (_SHORT, 8),  # Deflate
        262: (_SHORT, 2),  # RGB
        273: (_LONG, (0,) * len(starts)),  # offsets and lengths of the strips, filled in below
        277: (_SHORT, channels),
        278: (_LONG, rows),
        279: (_LONG, (0,) * len(starts)),
        284: (_SHORT, 1),  # samples interleaved
        317: (_SHORT, 2),  # predictor
        34675: (_UNDEFINED, profile),
    }
    if channels == 4:
        structure[338] = _SHORT, (2,)  # unassociated alpha
    if dpi is not None:
        structure |= {282: (_RATIONAL, dpi[0]), 283: (_RATIONAL, dpi[1]), 296: (_SHORT, 2)}
    for tag, (kind, value) in structure.items():
        directory.tagtype[tag] = kind
        directory[tag] = value
    length = len(directory.tobytes(len(_HEADER)))

    file.write(_HEADER + bytes(length))
    sizes = []
    for start in starts:
        strip = samples[start : start + rows].astype(samples.dtype.newbyteorder("<"))
        strip[:, 1:] -= samples[start : start + rows, :-1]
        sizes.append(file.write(zlib.compress(strip.data)))
    # Pillow adds the directory's end to the offsets.
    directory[273] = tuple(int(end) for end in np.cumsum([0, *sizes[:-1]]))
    directory[279] = tuple(sizes)
    data = directory.tobytes(len(_HEADER))
    assert len(data) == length
    file.seek(len(_HEADER))
    file.write(data)
