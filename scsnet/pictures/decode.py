"""Convert every mode of Pillow to sRGB planes and alpha: bits, palettes, 16-bit and float gray, CMYK, LAB, profiles."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from . import icc

# TIFF tags
_PHOTOMETRIC, _BITS_PER_SAMPLE, _SUBFILE_TYPE = 262, 258, 254
_SUB_DIRECTORIES, _DNG_VERSION = 330, 50706
_WHITE_IS_ZERO = 0  # photometric value of old scanners and fax
_SRGB_GAMMA = 1 / 2.2  # as gAMA of PNG has it
_HEADER_BYTES = 100_000
# What starts the header that has the depth, at which byte behind, which bits of it, and from which value on it is above 8:
# the bits of the first channel less one, and the flag of more than 8 bits.
_DEPTH_IN_HEADER = {
    "JPEG2000": (b"\xff\x4f\xff\x51", 42, 0x7F, 8),
    "AVIF": (b"av1C", 6, 0x40, 0x40),
}
_GRAY_SCALE = {"L;2": 85, "L;4": 17}  # from 2 and 4 bits to 8


def find_larger(image: Image.Image, path: Path) -> Image.Image | None:
    """Return the largest picture that Pillow reads in the further directories of a raw file; None without a larger one.

    Raw files (TIFF, DNG) hold a small picture, the sensor's values, which Pillow does not read, and often developed ones.
    """
    if not _is_preview(image):
        return None
    tags: Mapping[int, Any] = image.tag_v2  # type: ignore[attr-defined]
    data = bytearray(path.read_bytes())
    larger = [image]
    for offset in tags.get(_SUB_DIRECTORIES, ()):
        # As if it were the first of the file.
        struct.pack_into("<L" if data[:2] == b"II" else ">L", data, 4, offset)
        with warnings.catch_warnings(), contextlib.suppress(UnidentifiedImageError):
            warnings.simplefilter("ignore")  # of what is not read
            larger.append(Image.open(io.BytesIO(data), formats=["TIFF"]))
    largest = max(larger, key=lambda picture: picture.width * picture.height)
    return None if largest is image else largest


def list_losses(image: Image.Image, larger: Image.Image | None = None) -> list[str]:
    """List what the user should know of a picture just opened, not yet decoded: what is left out or not followed.

    `larger` is what `find_larger` found.
    """
    notes = []
    if larger is not None:
        notes.append(
            f"is a raw file: of its pictures the one of {larger.width} x {larger.height} is read"
        )
    elif _is_preview(image):
        notes.append(
            f"is a raw file or a preview: only its small picture of {image.width} x {image.height} is read"
        )
    # PSD opens as its layers merged.
    if getattr(image, "is_animated", False) and image.format != "PSD":
        what = {"TIFF": "pages", "DCX": "pages", "MPO": "pictures"}.get(
            image.format or "", "frames"
        )
        notes.append(f"has {getattr(image, 'n_frames', 1)} {what}, only the first is used")
    if not is_deep_gray(image) and _holds_more_than_8_bits(image):
        notes.append("holds more than 8 bits per colour, of which Pillow reads 8")
    gamma = image.info.get("gamma")
    if gamma and not {"icc_profile", "srgb"} & set(image.info) and abs(gamma - _SRGB_GAMMA) > 0.01:
        notes.append(f"its gamma of {gamma:g} is not followed, its values are taken as sRGB")
    return notes


def _is_preview(image: Image.Image) -> bool:
    """Return whether the first picture of a TIFF is a reduced one, as in raw files of cameras."""
    if image.format != "TIFF":
        return False
    tags: Mapping[int, Any] = image.tag_v2  # type: ignore[attr-defined]
    raw_ending = Path(str(getattr(image, "filename", ""))).suffix.lower() in (".cr2", ".pef")
    return bool(int(tags.get(_SUBFILE_TYPE, 0)) & 1) or _DNG_VERSION in tags or raw_ending


def _holds_more_than_8_bits(image: Image.Image) -> bool:
    """Return whether a picture not yet decoded holds more than 8 bits per colour, as far as its plugin or header says."""
    arguments = [tile[3] for tile in getattr(image, "tile", ())]
    if image.format == "PPM":
        return any(isinstance(a, tuple) and len(a) == 2 and a[1] > 255 for a in arguments)
    if image.format in _DEPTH_IN_HEADER:
        mark, place, mask, least = _DEPTH_IN_HEADER[image.format]
        with Path(image.filename).open("rb") as file:  # type: ignore[attr-defined]
            header = file.read(_HEADER_BYTES)
        found = header.find(mark)
        return 0 <= found < len(header) - place and header[found + place] & mask >= least
    return any(";16" in str(argument) for argument in arguments)


def correct_transparency(image: Image.Image) -> None:
    """Scale the transparent value of an opened 2- or 4-bit gray PNG as Pillow scales its pixels."""
    value = image.info.get("transparency")
    layouts = [tile[3] for tile in getattr(image, "tile", ())]
    if image.mode == "L" and isinstance(value, int) and layouts and layouts[0] in _GRAY_SCALE:
        image.info["transparency"] = value * _GRAY_SCALE[layouts[0]]


def decode_planes(image: Image.Image, notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Convert a decoded picture to sRGB (H, W, 1 or 3), uint8 0..255 or float32 0..1, and alpha (H, W) uint8 or None.

    It is not turned by its EXIF orientation. A profile that cannot be used is added to `notes`, and is no error.
    """
    profile = _usable_profile(image, notes)
    if is_deep_gray(image):
        transparent = image.info.get("transparency")
        values = np.asarray(image)
        alpha = (
            np.where(values == transparent, 0, 255).astype(np.uint8)
            if isinstance(transparent, int)
            else None
        )
        gray = _scaled(values, image.mode, getattr(image, "tag_v2", {}), notes)
        return _gray_to_srgb(gray, profile, notes)[..., None], alpha

    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
        alpha = np.array(image.getchannel("A"))
        # The colours as they are, not blended.
        image = image.convert("L" if image.mode == "LA" else "RGB")
    if image.mode in ("1", "L"):
        gray = np.array(image.convert("L"))
        if image.format == "XBM":  # Pillow takes its ink for white
            gray = 255 - gray
        return _gray_to_srgb(gray, profile, notes)[..., None], alpha
    if image.mode == "LAB":
        return np.array(icc.lab_to_srgb(image)), alpha
    if image.mode not in ("RGB", "CMYK"):
        image = image.convert("RGB")
    if profile is not None:
        try:
            image = icc.to_srgb(image, profile)
        except icc.PROFILE_ERRORS as error:
            notes.append(_profile_note(error))
    return np.array(image.convert("RGB")), alpha


def is_deep_gray(image: Image.Image) -> bool:
    """Return whether a picture is gray of more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"  # I, I;16, I;16B, ...


def _usable_profile(image: Image.Image, notes: list[str]) -> bytes | None:
    profile = image.info.get("icc_profile")
    if not profile:
        return None
    try:
        return profile if icc.needs_conversion(profile) else None
    except icc.PROFILE_ERRORS as error:
        notes.append(_profile_note(error))
        return None


def _profile_note(error: Exception) -> str:
    return f"its colour profile cannot be used ({error}), its values are taken as sRGB"


def _gray_to_srgb(gray: np.ndarray, profile: bytes | None, notes: list[str]) -> np.ndarray:
    """Convert gray (H, W) uint8 or float32 under this profile to sRGB gray, float32 where a curve is applied."""
    if profile is None:
        return gray
    try:
        x, y = icc.gray_curve(profile)
    except icc.PROFILE_ERRORS as error:
        notes.append(_profile_note(error))
        return gray
    if np.abs(x - y).max() <= 1 / 255:  # sRGB but for the rounding
        return gray
    if gray.dtype == np.uint8:
        return np.interp(np.arange(256) / 255, x, y).astype(np.float32)[gray]
    for row in gray:  # by rows: np.interp works in float64
        row[:] = np.interp(row, x, y)
    return gray


def _scaled(values: np.ndarray, mode: str, tiff: Mapping[int, Any], notes: list[str]) -> np.ndarray:
    """Scale gray (H, W) of more than 8 bits to float32 0..1, black to white.

    16-bit: by the bits the file declares. 32-bit integers and floats don't declare a white: the smallest of 1 (floats
    only), 255 and 65535 that holds every value, else the picture's own darkest and brightest values.
    """
    bits = tiff.get(_BITS_PER_SAMPLE, (16,))[0]
    low, high = 0.0, float(2**bits - 1 if 8 < bits <= 16 else 65535)
    if mode == "F" and not np.isfinite(values).all():
        notes.append("holds values that are not numbers, they become black")
        values = np.where(np.isfinite(values), values, 0)
    if mode == "F" or (mode == "I" and bits > 16):
        lowest, highest = float(values.min()), float(values.max())
        whites = [
            white
            for white in (1.0, 255.0, 65535.0)[mode == "I" :]
            if highest <= white and lowest >= 0
        ]
        if whites:
            high = whites[0]
        else:
            low, high = lowest, max(highest, lowest + 1)
            notes.append(
                f"holds values from {lowest:g} to {highest:g}, stretched to black and white"
            )
    gray = values.astype(np.float32)
    gray -= np.float32(low)
    gray *= np.float32(1 / (high - low))
    np.clip(gray, 0, 1, out=gray)
    if tiff.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts these at 8 bits only
        np.subtract(1, gray, out=gray)
    return gray
