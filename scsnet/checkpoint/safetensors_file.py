"""The safetensors format: the package of that name reads it, `write` writes it.

The package writes metadata in random order, so that equal weights would not give equal files.
`FormatError` (a ValueError) names a bad file and the reason; OSErrors come from the disk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from ..atomic_write import open_atomic

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

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
    """One tensor of a file: its type as the file names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """Metadata and tensors of a file, without their values."""

    path: Path
    metadata: Mapping[str, str]
    entries: Mapping[str, Entry]


def _explain(path: Path, error: Exception) -> FormatError:
    """Make the error for a file that the package cannot read."""
    with path.open("rb") as file:
        start = file.read(64)
    for magic, reason in OTHER_FILES:
        if start.startswith(magic):
            return FormatError(f"{path} {reason}.")
    return FormatError(
        f"{path} is not a valid safetensors file, or is truncated ({path.stat().st_size:,} bytes): {error}."
    )


def read_header(path: Path) -> Header:
    """Read metadata, names, types and shapes. The package compares them with the size of the file."""
    try:
        with safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            entries = {n: Entry(s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()}
            return Header(path, file.metadata() or {}, entries)
    except SafetensorError as error:
        raise _explain(path, error) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors into memory. No mapping: it would end the process if the file were shortened."""
    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise _explain(path, error) from error


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file, whole or not at all. Equal tensors and metadata give equal bytes.

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
