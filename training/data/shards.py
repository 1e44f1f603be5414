"""Copy photos into a folder or pack them into shards, resized or unchanged."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from scsnet.atomic_write import open_atomic
from training.data.photos import Entry, decode_photo, read_bytes

File = tuple[str, bytes]
"""File name and content."""


def shrink_to_jpeg(content: bytes, name: str, side: int, quality: int) -> bytes:
    """Encode a photo as JPEG, its short side reduced to `side`. Raises BadPhotoError."""
    photo = Image.fromarray(decode_photo(name, content))
    scale = side / min(photo.size)
    if scale < 1:
        width, height = (max(1, round(length * scale)) for length in photo.size)
        photo = photo.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def read_copies(photos: Sequence[Entry], side: int, quality: int) -> Iterator[File]:
    """Yield the photos as numbered files: unchanged, or with `side` > 0 as reduced JPEGs. Raises BadPhotoError."""
    for number, entry in enumerate(photos):
        content, suffix = read_bytes(entry), Path(entry.name).suffix.lower()
        if side:
            content, suffix = shrink_to_jpeg(content, entry.name, side, quality), ".jpg"
        yield f"{number:08}{suffix}", content


def write_copies(folder: Path, contents: Iterable[File]) -> None:
    """Write files into a folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents:
        with open_atomic(folder / name) as file:
            file.write(content)


def write_shards(folder: Path, contents: Iterable[File], per_shard: int) -> int:
    """Write numbered tars in the layout of WebDataset, each whole or not at all; return their number."""
    folder.mkdir(parents=True, exist_ok=True)
    rest = iter(contents)
    for count in itertools.count():
        batch = list(itertools.islice(rest, per_shard))
        if not batch:
            break
        path = folder / f"photos-{count:06}.tar"
        with open_atomic(path) as file, tarfile.open(fileobj=file, mode="w") as shard:
            for name, content in batch:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))
    return count
