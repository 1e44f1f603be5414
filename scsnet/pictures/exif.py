"""What travels beside the pixels: EXIF, resolution and the sRGB profile of every output.

EXIF is held as a plain dictionary {tag: value}; the Exif and GPS directories are dictionaries inside it. It is read
without what would be wrong in an enlarged picture (orientation, strip offsets, thumbnail, resolution), and
`exif_bytes` puts the right numbers back.
"""

from __future__ import annotations

import functools
import math
import struct
from typing import Any

from PIL import ExifTags, Image, ImageCms

Tags = dict[int, Any]

_BASE = ExifTags.Base
_EXIF, _GPS, _INTEROP = int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo), int(ExifTags.IFD.Interop)

# First-directory tags that describe how one particular file is laid out, or that are rewritten on output.
_STRUCTURAL = frozenset([254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 280, 281, 282,
                         283, 284, 292, 293, 296, *range(317, 348), *range(512, 522), 529, 530, 531, 532,
                         700, 33723, 34377, 34675, 37724])  # fmt: skip
# Exif-directory tags that are positions or counts in the old picture's pixels.
_PIXEL_POSITIONS = frozenset([37396, 41492, 41486, 41487, 41488])

# What Pillow raises when it reads or writes a tag that is not what its type says.
_TAG_ERRORS = (struct.error, ValueError, TypeError, KeyError, OverflowError, AttributeError, RuntimeError, SyntaxError,
               OSError, ZeroDivisionError)  # fmt: skip


@functools.cache
def srgb_profile() -> bytes:
    """The sRGB profile written into every output, the same bytes each time."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = struct.pack(
        ">6H", 2022, 1, 1, 0, 0, 0
    )  # its creation date: else no two outputs were alike
    return bytes(profile)


def read_exif(image: Image.Image, notes: list[str]) -> tuple[int, Tags, tuple[float, float] | None]:
    """Orientation (1..8), tags worth keeping, and dots per inch (x, y) as stored, of a picture.

    What cannot be read is said in `notes`.
    """
    try:
        exif = image.getexif()
        tags: Tags = {int(tag): exif[tag] for tag in list(exif)}
        for directory in (_EXIF, _GPS):
            if directory in tags:
                tags[directory] = dict(exif.get_ifd(directory))
        if _EXIF in tags and _INTEROP in tags[_EXIF]:
            tags[_EXIF][_INTEROP] = dict(exif.get_ifd(_INTEROP))
    except _TAG_ERRORS as error:
        notes.append(f"its EXIF data cannot be read and is left out ({error})")
        return 1, {}, _resolution(image, {})
    orientation = tags.get(_BASE.Orientation, 1)
    if orientation not in range(1, 9):  # also anything that is not a number
        notes.append(f"its EXIF orientation {orientation!r} means nothing and is ignored")
        orientation = 1
    dpi = _resolution(image, tags)
    tags = {
        tag: value
        for tag, value in tags.items()
        if tag not in _STRUCTURAL and value not in ({}, None)
    }
    if _EXIF in tags:
        tags[_EXIF] = {
            tag: value for tag, value in tags[_EXIF].items() if tag not in _PIXEL_POSITIONS
        }
    return int(orientation), tags, dpi


def _resolution(image: Image.Image, tags: Tags) -> tuple[float, float] | None:
    """Dots per inch (x, y) from the file's own header, else from EXIF; None where it says none that make sense."""
    unit = {2: 1.0, 3: 2.54}.get(tags.get(_BASE.ResolutionUnit, 2))
    candidates = [image.info.get("dpi")]
    if unit is not None:
        candidates.append((tags.get(_BASE.XResolution), tags.get(_BASE.YResolution)))
    for number, candidate in enumerate(candidates):
        try:
            x, y = (float(value) * (unit if number and unit else 1.0) for value in candidate)  # type: ignore[union-attr]
        except (TypeError, ValueError, ZeroDivisionError):
            continue
        if all(math.isfinite(value) and 1 <= value < 1e6 for value in (x, y)):
            return x, y
    return None


def exif_bytes(tags: Tags, size: tuple[int, int], dpi: tuple[float, float] | None, limit: int | None = None) -> tuple[
    bytes | None, list[str]
]:  # fmt: skip
    """EXIF of an upright sRGB picture of (width, height) pixels, or None without tags, and notes on what was left out.

    limit: the most bytes the format holds (JPEG: one segment).
    """
    if not tags:
        return None, []
    tags = {**tags, int(_BASE.Orientation): 1}
    if dpi is not None:
        tags |= {
            int(_BASE.XResolution): dpi[0],
            int(_BASE.YResolution): dpi[1],
            int(_BASE.ResolutionUnit): 2,
        }
    if _EXIF in tags:
        details = dict(tags[_EXIF])
        replaced = {
            _BASE.ExifImageWidth: size[0],
            _BASE.ExifImageHeight: size[1],
            _BASE.ColorSpace: 1,
        }
        details |= {int(tag): value for tag, value in replaced.items() if tag in details}
        tags[_EXIF] = details
    notes = []
    data = _serialise(tags)
    if data is None:
        lost = [tag for tag in tags if _serialise({tag: tags[tag]}) is None]
        notes.append(
            "EXIF tags that cannot be written are left out: " + ", ".join(map(_name, lost))
        )
        data = _serialise({tag: value for tag, value in tags.items() if tag not in lost})
    if data is not None and limit is not None and len(data) > limit:
        notes.append(
            f"its EXIF data ({len(data)} bytes) does not fit into this format and is left out"
        )
        data = None
    return data, notes


def _serialise(tags: Tags) -> bytes | None:
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    try:
        return exif.tobytes()
    except _TAG_ERRORS:
        return None


def _name(tag: int) -> str:
    return ExifTags.TAGS.get(tag, f"{tag:#06x}")
