"""Where photos are: folders, lists and shards; reading one of them, whatever state it is in."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from training.paths import ERRORS, printable

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff"}
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow was seen to raise for broken files, in their metadata too, and near relatives of it."""
SMALLEST = 16  # pixels on the short side: below that a photo counts as bad


class Entry(NamedTuple):
    """One photo: a file, or a part of a shard."""

    name: str
    """For people."""
    path: str
    offset: int = 0
    size: int = -1
    """Bytes from `offset`; -1: to the end."""


class BadPhotoError(ValueError):
    """A photo that cannot be read or used; says which and why."""


def find_photos(sources: Sequence[str | Path]) -> list[Entry]:
    """All photos of folders, lists (.txt) and shards (.tar), in a fixed order.

    A folder is searched recursively, for shards too. Errors: FileNotFoundError; ValueError where a
    source is of no known kind or holds no photo.
    """
    entries: list[Entry] = []
    for source in sources:
        path = Path(source).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"there is no folder, list or shard {path}")
        if path.is_dir():
            found = _folder(path)
        elif path.suffix == ".txt":
            found = _list(path)
        elif path.suffix == ".tar":
            found = _shard(path)
        elif path.suffix.lower() in SUFFIXES:
            found = [Entry(printable(str(path)), str(path))]
        else:
            raise ValueError(f"{path} is no folder, list (.txt), shard (.tar) or photo")
        if not found:
            raise ValueError(f"no photos ({', '.join(sorted(SUFFIXES))}) in {path}")
        entries += found
    return entries


def _folder(path: Path) -> list[Entry]:
    entries = []
    for file in sorted(path.rglob("*")):
        if file.suffix.lower() in SUFFIXES and file.is_file():
            entries.append(Entry(printable(str(file)), str(file)))
        elif file.suffix == ".tar" and file.is_file():
            entries += _shard(file)
    return entries


def _list(path: Path) -> list[Entry]:
    text = path.read_text("utf-8-sig", ERRORS)
    if "\0" in text:
        raise ValueError(f"{path} is no list of photos in UTF-8")
    # Not splitlines: that cuts names at rare characters which they may hold.
    lines = [line.strip() for line in text.split("\n")]
    return [
        Entry(printable(line), str(path.parent / line))
        for line in lines
        if line and not line.startswith("#")
    ]


def _shard(path: Path) -> list[Entry]:
    """Photos of an uncompressed tar, as WebDataset has them, found by their place in the file.

    Any photo can then be read at any time, so a run goes on from the very photo where it stopped.
    """
    try:
        with tarfile.open(path, "r:") as shard:
            return [
                Entry(
                    printable(f"{path}:{member.name}"), str(path), member.offset_data, member.size
                )
                for member in shard
                if member.isfile() and Path(member.name).suffix.lower() in SUFFIXES
            ]
    except tarfile.TarError as error:
        raise ValueError(f"{path} is not an uncompressed tar: {error}") from error


def read_bytes(entry: Entry) -> bytes:
    """The file as it is. Errors: BadPhotoError."""
    try:
        with Path(entry.path).open("rb") as file:
            file.seek(entry.offset)
            return file.read(entry.size)
    except OSError as error:
        raise BadPhotoError(f"{entry.name}: {error.strerror}") from error


def decode_photo(name: str, content: bytes) -> np.ndarray:
    """sRGB uint8 (H, W, 3), upright. Errors: BadPhotoError."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            photo = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise BadPhotoError(f"{name}: no picture of a known format") from error
    except BROKEN as error:
        raise BadPhotoError(f"{name}: {error}") from error
    if min(photo.shape[:2]) < SMALLEST:
        raise BadPhotoError(f"{name}: {photo.shape[1]} x {photo.shape[0]} pixels are too few")
    return photo


def read_photo(entry: Entry) -> np.ndarray:
    """sRGB uint8 (H, W, 3), upright. Errors: BadPhotoError."""
    return decode_photo(entry.name, read_bytes(entry))


def select_evenly(entries: Sequence[Entry], count: int) -> list[Entry]:
    """`count` of the photos, evenly spread; all of them with 0."""
    if count <= 0 or count >= len(entries):
        return list(entries)
    return [entries[i * len(entries) // count] for i in range(count)]


def centre_square(photo: np.ndarray, size: int) -> Image.Image:
    """The middle square of a photo (H, W, 3), bicubic to size x size where it is not."""
    height, width = photo.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(photo[top : top + side, left : left + side])
    return square if side == size else square.resize((size, size), Image.Resampling.BICUBIC)


def read_squares(
    entries: Sequence[Entry], size: int, skipped: list[str]
) -> Iterator[tuple[Entry, Image.Image]]:
    """Photos as centre squares; bad ones are left out and named in `skipped`."""
    for entry in entries:
        try:
            photo = read_photo(entry)
        except BadPhotoError as error:
            skipped.append(str(error))
            continue
        yield entry, centre_square(photo, size)


class Cache:
    """The photos read last, up to so many bytes."""

    def __init__(
        self,
        entries: Sequence[Entry],
        capacity: float,
        read: Callable[[Entry], np.ndarray] = read_photo,
    ) -> None:
        self.entries = entries
        self.read = read
        self.capacity = capacity
        self.held = 0
        self.photos: OrderedDict[int, np.ndarray] = OrderedDict()

    def __getitem__(self, index: int) -> np.ndarray:
        """sRGB uint8 (H, W, 3). Errors: BadPhotoError."""
        if index in self.photos:
            self.photos.move_to_end(index)
            return self.photos[index]
        photo = self.read(self.entries[index])
        self.photos[index] = photo
        self.held += photo.nbytes
        while self.held > self.capacity and len(self.photos) > 1:
            self.held -= self.photos.popitem(last=False)[1].nbytes
        return photo
