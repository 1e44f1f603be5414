"""The safetensors format: 8 bytes of length N, N bytes of JSON, then the tensors' bytes.

Read and written here rather than with the package of that name, for three reasons. A mapped file
cannot be replaced on Windows and kills the process when something shortens it; the package writes
the metadata in random order, so the same weights never have the same sha256; and every length here
is compared with the size of the file before memory is taken. The files are the same either way.

Errors: ``FormatError`` (a ValueError) with the file's name and the reason; OSError from the disk.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..atomic_write import open_atomic

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER = 25_000_000  # bytes; a header of ours has about 30,000

# What a file that is something else begins with, and what to say about it.
OTHER_FILES = (
    (b"PK\x03\x04", "is a PyTorch pickle (or another zip archive); only safetensors is read here"),
    (b"\x80", "is a Python pickle; only safetensors is read here"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself; run: git lfs pull"),
    (b"<", "is a web page, not weights; the download went wrong"),
    (b"\x89HDF", "is an HDF5 file; only safetensors is read here"),
    (b"GGUF", "is a GGUF file; only safetensors is read here"),
)


class FormatError(ValueError):
    """A file that is not what it should be. The message names the file and the reason, on one line."""

    def __init__(self, message: str) -> None:
        """A message that repeats much of a bad file (a name as long as a book, say) is cut."""
        message = message.replace("\n", " ")
        super().__init__(message if len(message) <= 1000 else message[:1000] + " ...")


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its type as the file names it, its shape, its place after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """All that a file says about its tensors. ``start``: where in the file their bytes begin."""

    path: Path
    metadata: Mapping[str, str]
    entries: Mapping[str, Entry]
    start: int
    size: int


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, refusing two entries of one name (each reader would choose its own)."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _entry(name: str, value: object) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str):
        raise ValueError(f"tensor {name!r} has dtype {dtype!r}")
    if not isinstance(shape, list) or len(shape) > 8 or not all(map(_is_count, shape)):
        raise ValueError(f"tensor {name!r} has shape {shape!r}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise ValueError(f"tensor {name!r} has offsets {offsets!r}")
    return Entry(dtype, tuple(shape), *offsets)


def _metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError("__metadata__ does not map names to strings")
    return value


def _parse(text: bytes) -> tuple[dict[str, str], dict[str, Entry], int]:
    """Header bytes -> metadata, entries in the order of their bytes, number of those bytes."""
    content = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    if not isinstance(content, dict):
        raise ValueError("the header is not a JSON object")
    metadata = _metadata(content.pop("__metadata__", {}))
    found = [(name, _entry(name, value)) for name, value in content.items()]
    entries = dict(sorted(found, key=lambda item: (item[1].begin, item[1].end)))
    position = 0
    for name, entry in entries.items():
        if entry.begin != position or entry.end < entry.begin:
            raise ValueError(f"tensor {name!r} overlaps another one or leaves a gap")
        position = entry.end
    return metadata, entries, position


def read_header(file: io.BufferedReader, path: Path) -> Header:
    """Reads and checks the header of an open file; no tensor is touched. ``path`` is for messages."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    first = file.read(64)
    for magic, reason in OTHER_FILES:
        # A header of exactly 60 or 128 bytes would begin with "<" or 0x80 too: its 9th byte is "{".
        if first.startswith(magic) and first[8:9] != b"{":
            raise FormatError(f"{path} {reason}.")
    if size < 8:
        raise FormatError(f"{path} is empty or truncated: {size} bytes.")
    length = int.from_bytes(first[:8], "little")
    if length > size - 8:
        raise FormatError(
            f"{path} is not a safetensors file, or is truncated: "
            f"it has {size:,} bytes, but begins with a header length of {length:,}."
        )
    if length > MAX_HEADER:
        raise FormatError(
            f"{path} has a header of {length:,} bytes; at most {MAX_HEADER:,} make sense."
        )
    file.seek(8)
    try:
        metadata, entries, total = _parse(file.read(length))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not a valid safetensors file: {error}.") from error
    start = 8 + length
    if size < start + total:
        raise FormatError(f"{path} is truncated: {size:,} of {start + total:,} bytes.")
    if size > start + total:
        raise FormatError(
            f"{path} has {size - start - total:,} bytes too many after its last tensor."
        )
    return Header(path, metadata, entries, start, size)


def read_tensor(file: io.BufferedReader, header: Header, name: str) -> Tensor:
    """One tensor of the file, in memory of its own (no mapping, no second copy)."""
    entry = header.entries[name]
    dtype = DTYPES[entry.dtype]
    assert math.prod(entry.shape) * dtype.itemsize == entry.end - entry.begin, name
    data = torch.empty(entry.end - entry.begin, dtype=torch.uint8)
    file.seek(header.start + entry.begin)
    if file.readinto(data.numpy().data) != data.numel():
        raise FormatError(f"{header.path} was shortened while it was read.")
    return data.view(dtype).reshape(entry.shape)


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a file, whole or not at all. Equal tensors and metadata give equal bytes.

    Errors: ValueError for a dtype that the format here does not know; OSError from the disk.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES:
            raise ValueError(
                f"{name} is {tensor.dtype}; expected one of {', '.join(map(str, NAMES))}"
            )
    # The widest first: so each tensor's bytes begin at a multiple of its item size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for name, tensor in ordered:
        end = position + tensor.numel() * tensor.dtype.itemsize
        entries[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open_atomic(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, tensor in ordered:
            data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            file.write(data.numpy().data)
