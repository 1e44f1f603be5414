"""Find photos in folders, lists and shards, and read them."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from scsnet.pictures.decode import decode_planes
from training.text import ERRORS, make_printable

SUFFIXES = {".avif", ".bmp", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"}
UNSUPPORTED = {".cr2", ".dng", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".raw"}
"""Types of pictures that are left out with a warning."""
BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
"""Exceptions that Pillow raises for damaged files and metadata."""
CONTACT_SHEET = "contact_sheet.png"
"""Overview that prepare.py writes, which is never used as a photo."""
SMALLEST = 16  # pixels on the short side; smaller photos are not used
TRIES = 100  # unreadable photos in a row before giving up
T = TypeVar("T")


class Entry(NamedTuple):
    """Location of a photo: a file, or a part of a shard."""

    name: str
    """Name for messages."""
    path: str
    offset: int = 0
    size: int = -1
    """Bytes from `offset`; -1: to the end."""


Read = Callable[[Entry], np.ndarray]


class BadPhotoError(ValueError):
    """Raised for a photo that cannot be read or used. The message names it and the reason."""


def find_photos(sources: Sequence[str | Path]) -> list[Entry]:
    """List the photos of folders, lists (.txt), shards (.tar) and single files, in a fixed order.

    Folders are searched recursively, for shards too. Raises FileNotFoundError for a missing source and ValueError for one
    of another kind or without photos.
    """
    entries: list[Entry] = []
    for source in sources:
        path = Path(source).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"Photos not found: {path}")
        if path.is_dir():
            found = _list_folder(path)
        elif path.suffix == ".txt":
            found = _read_list(path)
        elif path.suffix == ".tar":
            found = _list_shard(path)
        elif path.suffix.lower() in SUFFIXES:
            found = [Entry(make_printable(str(path)), str(path))]
        else:
            raise ValueError(f"expected a folder, list (.txt), shard (.tar) or photo, got {path}")
        if not found:
            raise ValueError(f"no photos ({', '.join(sorted(SUFFIXES))}) in {path}")
        entries += found
    return entries


def _list_folder(path: Path) -> list[Entry]:
    """List the photos of a folder and of the shards in it, recursively."""
    entries = []
    files = sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        if file.suffix.lower() in SUFFIXES and file.name != CONTACT_SHEET:
            entries.append(Entry(make_printable(str(file)), str(file)))
        elif file.suffix == ".tar":
            entries += _list_shard(file)
    _report_unsupported(path, files)
    return entries


def _report_unsupported(source: Path, files: Iterable[Path]) -> None:
    """Print how many files of unsupported types a folder or shard has."""
    counts = Counter(file.suffix.lower() for file in files)
    for suffix in sorted(UNSUPPORTED & counts.keys()):
        print(f"left out {counts[suffix]} files of {source}: {suffix} is not supported")


def _read_list(path: Path) -> list[Entry]:
    """List the photos that a text file names, one per line, relative to its folder."""
    text = path.read_text("utf-8-sig", ERRORS)
    if "\0" in text:
        raise ValueError(f"{path} is no list of photos in UTF-8")
    # Not splitlines, which also splits at rare characters that names may contain.
    lines = [line.strip() for line in text.split("\n")]
    names = [line for line in lines if line and not line.startswith("#")]
    return [Entry(make_printable(name), str(path.parent / name)) for name in names]


def _list_shard(path: Path) -> list[Entry]:
    """List the photos of an uncompressed tar in the layout of WebDataset, by their offsets.

    Photos can then be read in any order, which makes resumed runs exact.
    """
    try:
        with tarfile.open(path, "r:") as shard:
            members = [member for member in shard if member.isfile()]
    except tarfile.TarError as error:
        raise ValueError(f"{path} is not an uncompressed tar: {error}") from error
    _report_unsupported(path, (Path(member.name) for member in members))
    members = [member for member in members if Path(member.name).suffix.lower() in SUFFIXES]
    names = [make_printable(f"{path}:{member.name}") for member in members]
    return [Entry(n, str(path), m.offset_data, m.size) for n, m in zip(names, members, strict=True)]


def read_bytes(entry: Entry) -> bytes:
    """Read the encoded photo. Raises BadPhotoError."""
    try:
        with Path(entry.path).open("rb") as file:
            file.seek(entry.offset)
            return file.read(entry.size)
    except OSError as error:
        raise BadPhotoError(f"{entry.name}: {error.strerror}") from error


def decode_photo(name: str, content: bytes) -> np.ndarray:
    """Decode a photo to sRGB uint8 (H, W, 3), applying its EXIF orientation and colour profile. Raises BadPhotoError."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode == "RGB" and not image.info.get("icc_profile"):
                photo = np.asarray(ImageOps.exif_transpose(image))
            else:
                photo = _convert_to_srgb(image)
    except UnidentifiedImageError as error:
        raise BadPhotoError(f"{name}: not a picture of a known format") from error
    except BROKEN as error:
        raise BadPhotoError(f"{name}: {error}") from error
    if min(photo.shape[:2]) < SMALLEST:
        size = f"{photo.shape[1]} x {photo.shape[0]} pixels"
        raise BadPhotoError(f"{name}: {size}, expected at least {SMALLEST} on each side")
    return photo


def _convert_to_srgb(image: Image.Image) -> np.ndarray:
    """Decode a photo of any mode and profile, as the command line does, to upright sRGB uint8 (H, W, 3)."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    planes, _ = decode_planes(image, [])
    if planes.dtype != np.uint8:  # deep gray, 0..1
        planes = (planes * 255).round().clip(0, 255).astype(np.uint8)
    upright = Image.fromarray(np.broadcast_to(planes, (*planes.shape[:2], 3)).copy())
    upright.getexif()[ExifTags.Base.Orientation] = orientation
    return np.asarray(ImageOps.exif_transpose(upright))


def read_photo(entry: Entry) -> np.ndarray:
    """Read and decode a photo to sRGB uint8 (H, W, 3), upright. Raises BadPhotoError."""
    return decode_photo(entry.name, read_bytes(entry))


def select_evenly(photos: Sequence[T], count: int) -> list[T]:
    """Select `count` photos, spread evenly over all; 0 selects all."""
    if count <= 0 or count >= len(photos):
        return list(photos)
    return [photos[i * len(photos) // count] for i in range(count)]


def centre_square(photo: np.ndarray, size: int) -> Image.Image:
    """Crop the central square of a photo (H, W, 3) and resize it to size x size, bicubic."""
    height, width = photo.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(photo[top : top + side, left : left + side])
    return square if side == size else square.resize((size, size), Image.Resampling.BICUBIC)


def read_photos(
    entries: Iterable[Entry], skipped: list[str], read: Read = read_photo
) -> Iterator[tuple[Entry, np.ndarray]]:
    """Yield the photos that can be read; the reasons of the others are added to `skipped`."""
    for entry in entries:
        try:
            yield entry, read(entry)
        except BadPhotoError as error:
            skipped.append(str(error))


def read_squares(
    entries: Iterable[Entry], size: int, skipped: list[str]
) -> Iterator[tuple[Entry, Image.Image]]:
    """Yield the central squares of the photos that can be read, size x size; see `read_photos`."""
    for entry, photo in read_photos(entries, skipped):
        yield entry, centre_square(photo, size)


class Cache:
    """Least recently used cache of decoded photos, up to `capacity` bytes; `read` reads one."""

    def __init__(self, entries: Sequence[Entry], capacity: float, read: Read = read_photo) -> None:
        self.entries, self.capacity, self.decode, self.held = entries, capacity, read, 0
        self.photos: OrderedDict[int, np.ndarray] = OrderedDict()

    def __getitem__(self, index: int) -> np.ndarray:
        """Return a photo as sRGB uint8 (H, W, 3). Raises BadPhotoError."""
        if index in self.photos:
            self.photos.move_to_end(index)
            return self.photos[index]
        photo = self.decode(self.entries[index])
        self.photos[index] = photo
        self.held += photo.nbytes
        while self.held > self.capacity and len(self.photos) > 1:
            self.held -= self.photos.popitem(last=False)[1].nbytes
        return photo

    def read(self, index: int, skipped: list[str]) -> np.ndarray:
        """Return a photo, or in place of an unreadable one the next in the list.

        The reasons are added to `skipped`. Raises ValueError if `TRIES` photos are unreadable.
        """
        tries = min(TRIES, len(self.entries))
        for offset in range(tries):
            try:
                return self[(index + offset) % len(self.entries)]
            except BadPhotoError as error:
                skipped.append(str(error))
        raise ValueError(f"{tries} photos in a row cannot be read; the last: {skipped[-1]}")

    def draw(self, rng: np.random.Generator, side: int, skipped: list[str]) -> np.ndarray:
        """Return a random photo of at least side x side pixels.

        The reasons of unreadable ones are added to `skipped`. Raises ValueError if `TRIES` photos are smaller or unreadable.
        """
        for _ in range(TRIES):
            try:
                photo = self[int(rng.integers(len(self.entries)))]
            except BadPhotoError as error:
                skipped.append(str(error))
                continue
            if min(photo.shape[:2]) >= side:
                return photo
        raise ValueError(f"expected photos of at least {side} pixels, got none in {TRIES} tries")
