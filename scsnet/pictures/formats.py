"""Which files are written, by their ending, and how large a picture each format holds."""

from __future__ import annotations

from pathlib import Path

# Format by ending, and the longest side that format holds.
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
DEEP = ("PNG", "TIFF")
"""Formats with 16 bits per channel."""
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}
_TIFF_BYTES = 4_000_000_000  # offsets of 32 bits


class PictureError(ValueError):
    """A picture that cannot be read or written: one line that names the file and the reason."""


def output_format(path: Path) -> str:
    """Return Pillow's name of the format for this ending; PictureError for one that is not written."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise PictureError(
            f"{path}: the ending says the format, and it must be one of {', '.join(FORMATS)}"
        ) from None


def check_output_size(path: Path, width: int, height: int, bits: int = 8) -> None:
    """Raise PictureError where the format of this ending cannot hold so large a picture."""
    kind = output_format(path)
    limit = _LONGEST_SIDE.get(kind)
    if limit is not None and max(width, height) > limit:
        raise PictureError(
            f"{path}: {width} x {height} is too large, a {kind} has at most {limit} pixels a side"
        )
    if kind == "TIFF" and width * height * 4 * bits // 8 > _TIFF_BYTES:
        raise PictureError(
            f"{path}: {width} x {height} is too large for a TIFF, which ends at 4 GB; PNG holds it"
        )
