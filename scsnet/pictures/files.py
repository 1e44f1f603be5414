"""Read any picture that Pillow reads, upright and in sRGB; write PNG, JPEG, WebP and TIFF.

No torch here: arguments and files are checked before it is imported.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from ..atomic_write import open_atomic
from .decode import correct_transparency, decode_planes, find_larger, is_deep_gray, list_losses
from .exif import Tags, exif_bytes, is_adobe_rgb, read_exif, srgb_profile, update_exif
from .formats import DEEP, PictureError, check_output_size, output_format
from .icc import adobe_rgb_profile
from .jpeg import decode_jpeg
from .metadata import Captions, caption_options, read_captions
from .png import write_deep_png
from .stderr import capture_stderr
from .tiff import write_tiff

MAX_PIXELS = 1_500_000_000  # Pillow's own limit (89 million) refuses ordinary scans
# Of the texts, XMP and profile of a PNG; Pillow's own limit (1 MiB each) refuses sound files.
MAX_TEXT_BYTES = 2**28

# What Pillow raises for a damaged file, beside OSError: its plugins parse untrusted bytes and check little.
_DAMAGED = (SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError, TypeError, AttributeError,
            RuntimeError, OverflowError, ZeroDivisionError)  # fmt: skip

_QUALITY = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "exact": True},  # exact: keep the colours under transparent pixels
}
_EXIF_BYTES = {"JPEG": 65533}
# Reading changes state of the whole process: Pillow's limit, the warning filters, and file descriptor 2.
_READ_LOCK = threading.Lock()
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as it was meant to be seen: upright, in sRGB."""

    path: Path
    rgb: np.ndarray
    """(height, width, 1 or 3), uint8 0..255, or float32 0..1 where 8 bits would not hold it"""
    deep: bool = False
    """whether the file held more than 8 bits of gray, all of them read"""
    alpha: np.ndarray | None = None
    """(height, width) uint8, 255 opaque"""
    tags: Tags
    """EXIF worth keeping, see exif.py"""
    captions: Captions = field(default_factory=Captions)
    """XMP, IPTC, comments, PNG texts"""
    dpi: tuple[float, float] | None = None
    """dots per inch (x, y) of the upright picture"""
    notes: tuple[str, ...] = ()
    """what the user should know: pages left out, a broken profile"""

    @property
    def height(self) -> int:
        """Rows, upright."""
        return self.rgb.shape[0]

    @property
    def width(self) -> int:
        """Columns, upright."""
        return self.rgb.shape[1]


def read_picture(path: Path | str) -> Picture:
    """Read one picture; safe to call from several threads, which take turns.

    PictureError if it is missing, a folder, damaged, not a picture, or over MAX_PIXELS.
    """
    path = Path(path)
    check_is_file(path)
    with (
        _READ_LOCK,
        _explain_damage(path),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        with _pillow_limits(), Image.open(path) as first:
            larger = find_larger(first, path)
            image = larger or first  # whose pixels are read; the rest is the first one's
            if image.width * image.height > MAX_PIXELS:
                raise PictureError(
                    f"{path}: {image.width} x {image.height} pixels are more than the {MAX_PIXELS / 1e6:.0f} million"
                    " that can be read"
                )
            notes = list_losses(first, larger)
            turned = (
                image.getexif().get(ExifTags.Base.Orientation) if image.format == "TIFF" else None
            )
            sideways = turned in _SIDEWAYS
            capture: contextlib.AbstractContextManager[list[str]] = (
                capture_stderr() if image.format == "TIFF" else contextlib.nullcontext([])
            )
            correct_transparency(image)
            if is_adobe_rgb(image):  # here: a TIFF is closed when it is decoded
                image.info["icc_profile"] = adobe_rgb_profile()
            with capture as complaints:
                _load(image, notes)  # Pillow turns a TIFF while it decodes it, and nothing else
            orientation, tags, dpi = read_exif(first, notes)
            if image is larger and turned not in (None, 1):
                orientation = 1
            captions = read_captions(first, notes)
            if sideways or orientation != 1:
                captions = captions.without_places(notes)
            rgb, alpha = decode_planes(image, notes)
            deep = is_deep_gray(image)
    if complaints:
        notes.append(f"the file is damaged, parts may be wrong ({complaints[0]})")
    notes += [
        f"Pillow says: {' '.join(str(w.message).split())}"
        for w in caught
        if w.category is UserWarning
    ]
    if dpi is not None and (sideways or orientation in _SIDEWAYS):
        dpi = dpi[1], dpi[0]
    return Picture(
        path=path,
        rgb=_upright(rgb, orientation),
        deep=deep,
        alpha=None if alpha is None else _upright(alpha, orientation),
        tags=tags,
        captions=captions,
        dpi=dpi,
        notes=tuple(dict.fromkeys(notes)),
    )


def check_is_file(path: Path) -> None:
    """Raise PictureError unless there is a file that is not empty."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise PictureError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise PictureError(f"{path}: is a folder, a picture is needed here")
    if not stat.S_ISREG(status.st_mode):
        raise PictureError(f"{path}: is not a regular file")
    if status.st_size == 0:
        raise PictureError(f"{path}: the file is empty")


@contextlib.contextmanager
def _explain_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"{path}: is not a picture that Pillow can read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(
            f"{path}: is larger than the {MAX_PIXELS / 1e6:.0f} million pixels that can be read"
        ) from error
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise PictureError(f"{path}: there is not enough memory to read it") from error
    except _DAMAGED as error:
        raise PictureError(
            f"{path}: the file is damaged ({error or type(error).__name__})"
        ) from error


@contextlib.contextmanager
def _pillow_limits() -> Iterator[None]:
    """Set our limits in place of Pillow's while a file is opened and decoded (frames inside a file are checked by Pillow)."""
    pixels, text = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
    memory = PngImagePlugin.MAX_TEXT_MEMORY
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT_BYTES
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = pixels
        PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = text, memory


def _load(image: Image.Image, notes: list[str]) -> None:
    """Decode an opened picture; of a JPEG also say what is damaged or missing."""
    if image.format != "JPEG":
        image.load()
    elif note := decode_jpeg(image):
        notes.append(note)


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn (H, W, ...) as stored to how it was meant to be seen (EXIF orientation 1..8)."""
    if orientation in _SIDEWAYS:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def write_picture(
    path: Path | str,
    rgb: np.ndarray,
    *,
    alpha: np.ndarray | None = None,
    tags: Tags | None = None,
    captions: Captions | None = None,
    dpi: tuple[float, float] | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Write sRGB (H, W, 3), uint8 or float32 0..1, with alpha (H, W) uint8, in the format of the ending.

    float32 is written with 16 bits per channel, in PNG and TIFF only. EXIF tags, captions and dots per inch go with it.
    Returns notes on what the format could not keep. The file appears complete under its name or not at all, whatever
    interrupts it. PictureError if it cannot be written, or exists and `overwrite` is not set.
    """
    path = Path(os.path.realpath(path))  # through a link: replace what it points to, not the link
    height, width = rgb.shape[:2]
    bits = 8 if rgb.dtype == np.uint8 else 16
    check_output_size(path, width, height, bits)
    kind = output_format(path)
    if bits == 16 and kind not in DEEP:
        raise PictureError(f"{path}: a {kind} has 8 bits per channel, 16 need {' or '.join(DEEP)}")
    notes = []
    if alpha is not None and kind == "JPEG":
        if alpha.min() < 255:
            notes.append("JPEG has no transparency, its see-through parts are white")
        rgb, alpha = _on_white(rgb, alpha), None
    exif, lost = update_exif(tags or {}, (width, height), dpi)
    options, lost_captions = caption_options(captions or Captions(), kind, (width, height), dpi)
    notes += lost + lost_captions
    if path.exists() and not overwrite:
        raise PictureError(f"{path}: exists already")
    if kind == "TIFF":
        with _explain_write_error(path), open_atomic(path) as file:
            write_tiff(file, _samples(rgb, alpha), exif | options["tags"], srgb_profile(), dpi)
        return notes
    options |= {"icc_profile": srgb_profile(), **_QUALITY.get(kind, {})}
    data = exif_bytes(exif) if exif else None
    if data is not None and len(data) > _EXIF_BYTES.get(kind, len(data)):
        notes.append(f"its EXIF data ({len(data)} bytes) does not fit into a {kind}: left out")
    elif data is not None:
        options["exif"] = data
    if dpi is not None and kind != "WEBP" and max(dpi) <= 65535:
        options["dpi"] = dpi
    with _explain_write_error(path), open_atomic(path) as file:
        if bits == 16:
            write_deep_png(file, _samples(rgb, alpha), **options)
        else:
            image = _merged(rgb)
            if alpha is not None:
                image.putalpha(Image.fromarray(alpha))
            image.save(file, kind, **options)
    return notes


def _merged(rgb: np.ndarray) -> Image.Image:
    planes = [Image.fromarray(np.ascontiguousarray(rgb[..., c])) for c in range(3)]
    return Image.merge("RGB", planes)


def _samples(rgb: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Join (H, W, 3), uint8 or float32 0..1, and alpha to (H, W, 3 or 4), uint8 or uint16."""
    deep = rgb.dtype != np.uint8
    samples = np.empty((*rgb.shape[:2], 3 + (alpha is not None)), np.uint16 if deep else np.uint8)
    for c in range(3):
        samples[..., c] = np.rint(rgb[..., c].clip(0, 1) * 65535) if deep else rgb[..., c]
    if alpha is not None:
        samples[..., 3] = alpha
        samples[..., 3] *= 257 if deep else 1
    return samples


def _on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Blend (H, W, 3) uint8 under alpha (H, W) uint8 with white."""
    image = _merged(rgb)
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=Image.fromarray(alpha))
    return np.asarray(white)


@contextlib.contextmanager
def _explain_write_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PictureError(f"{path}: cannot be written: {error.strerror or error}") from error
