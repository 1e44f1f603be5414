"""Read and write EXIF and the resolution; the sRGB profile of every output.

EXIF is held as a dictionary {tag: value}; the Exif and GPS directories are dictionaries inside it. It is read without
what is wrong in an enlarged picture (orientation, strip offsets, thumbnail, resolution); `update_exif` puts the right
numbers back. Text is held as Pillow reads it, one character per byte whatever its encoding, and written as those bytes.
"""

from __future__ import annotations

import array
import functools
import math
import struct
from typing import Any

from PIL import ExifTags, Image, ImageCms

Tags = dict[int, Any]

_BASE = ExifTags.Base
_EXIF, _GPS, _INTEROP = int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo), int(ExifTags.IFD.Interop)
_INTEROP_INDEX = 1
_UNCALIBRATED = 65535  # a ColorSpace that is not sRGB
_UTF_16 = b"UNICODE\0"  # before a comment in the byte order of its file; we write little-endian
# Version and altitude reference; all other bytes of directories are of type UNDEFINED.
_GPS_BYTES = (0, 5)

# First-directory tags that describe how one particular file is laid out, or that are rewritten on output.
_STRUCTURAL = frozenset([254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 280, 281, 282,
                         283, 284, 292, 293, 296, *range(317, 348), *range(512, 522), 529, 530, 531, 532,
                         700, 33723, 34377, 34675, 37724, *range(50706, 51200)])  # fmt: skip
# Exif-directory tags that are positions or counts in the old picture's pixels.
_PIXEL_POSITIONS = frozenset([37396, 41492, 41486, 41487, 41488])

# What Pillow raises when it reads or writes a tag that is not what its type says.
_TAG_ERRORS = (struct.error, ValueError, TypeError, KeyError, OverflowError, AttributeError, RuntimeError, SyntaxError,
               OSError, ZeroDivisionError)  # fmt: skip


class _Bytes(str):
    """Text that Pillow writes as the bytes it was read from; of a plain str it writes only ASCII."""

    def encode(self, encoding: str = "latin-1", errors: str = "strict") -> bytes:
        """Return the bytes; UnicodeEncodeError where a character is none."""
        return super().encode("latin-1")


@functools.cache
def srgb_profile() -> bytes:
    """Return the sRGB profile written into every output, the same bytes each time."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # Its creation date: else no two outputs were alike.
    profile[24:36] = struct.pack(">6H", 2022, 1, 1, 0, 0, 0)
    return bytes(profile)


def read_exif(image: Image.Image, notes: list[str]) -> tuple[int, Tags, tuple[float, float] | None]:
    """Return orientation (1..8), tags worth keeping, and dots per inch (x, y) as stored.

    What cannot be read, or is not followed, is added to `notes`.
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
        comment = tags[_EXIF].get(_BASE.UserComment, b"")
        if exif.endian == ">" and comment[:8] == _UTF_16 and len(comment) % 2 == 0:
            swapped = array.array("H", comment[8:])
            swapped.byteswap()
            tags[_EXIF][_BASE.UserComment] = _UTF_16 + swapped.tobytes()
        interop = tags[_EXIF].get(_INTEROP)
        if interop and str(interop.get(_INTEROP_INDEX, "")).startswith("R03"):
            interop[_INTEROP_INDEX] = "R98"  # sRGB, as every output
    return int(orientation), tags, dpi


def is_adobe_rgb(image: Image.Image) -> bool:
    """Return whether a picture without a profile is in Adobe RGB by its EXIF data, as cameras say it (DCF 2.0)."""
    if image.info.get("icc_profile"):
        return False
    try:
        details = image.getexif().get_ifd(_EXIF)
        index = image.getexif().get_ifd(_INTEROP).get(_INTEROP_INDEX, "")
    except _TAG_ERRORS:  # which `read_exif` says
        return False
    return details.get(_BASE.ColorSpace) == _UNCALIBRATED and str(index).startswith("R03")


def _resolution(image: Image.Image, tags: Tags) -> tuple[float, float] | None:
    """Return dots per inch (x, y) as the file's header or EXIF declares them, None where neither does.

    Pillow makes up 1 dpi for a TIFF without the tags, and takes numbers without a unit for dots per inch.
    """
    jpeg = image.info.get("jfif_unit") in (1, 2)
    in_header = {"TIFF": False, "JPEG": jpeg, "MPO": jpeg}.get(image.format or "", True)
    unit = {2: 1.0, 3: 2.54}.get(tags.get(_BASE.ResolutionUnit, 2), math.nan)
    candidates = [
        (image.info.get("dpi") if in_header else None, 1.0),
        ((tags.get(_BASE.XResolution), tags.get(_BASE.YResolution)), unit),
    ]
    for candidate, factor in candidates:
        try:
            x, y = (float(value) * factor for value in candidate)  # type: ignore[union-attr, arg-type]
        except (TypeError, ValueError, ZeroDivisionError):
            continue
        if all(math.isfinite(value) and 1 <= value < 1e6 for value in (x, y)):
            return x, y
    return None


def update_exif(
    tags: Tags, size: tuple[int, int], dpi: tuple[float, float] | None
) -> tuple[Tags, list[str]]:
    """Return the tags of an upright sRGB picture of (width, height) pixels, and notes on those left out.

    Without tags there are none to return.
    """
    if not tags:
        return {}, []
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
    tags = {tag: _keep_bytes(value, isinstance(value, dict)) for tag, value in tags.items()}
    lost = []
    if exif_bytes(tags) is None:
        lost = [tag for tag in tags if exif_bytes({tag: tags[tag]}) is None]
    notes = ["EXIF tags that cannot be written are left out: " + ", ".join(map(_name, lost))]
    return {tag: value for tag, value in tags.items() if tag not in lost}, notes if lost else []


def _keep_bytes(value: Any, inside: bool = False) -> Any:
    """Return a tag's value, or a directory of them, made to be written byte for byte and with the type of the standard."""
    if isinstance(value, dict):
        return {
            tag: inner if tag in _GPS_BYTES else _keep_bytes(inner, inside)
            for tag, inner in value.items()
        }
    if isinstance(value, bytes) and inside:
        return (bytearray(value),)  # Pillow writes UNDEFINED, for bytes BYTE
    return _Bytes(value) if isinstance(value, str) else value


def exif_bytes(tags: Tags) -> bytes | None:
    """Serialise the tags that `update_exif` returned; None where Pillow cannot."""
    exif = Image.Exif()
    exif.endian = "<"
    for tag, value in tags.items():
        exif[tag] = value
    try:
        return exif.tobytes()
    except _TAG_ERRORS:
        return None


def _name(tag: int) -> str:
    return ExifTags.TAGS.get(tag, f"{tag:#06x}")
