"""Files and their names: text files that are whole or not there and may hold any name, how weights are called."""

from __future__ import annotations

from pathlib import Path

from scsnet.atomic_write import open_atomic

ERRORS = "surrogateescape"
"""What Python makes of bytes of a name that are not UTF-8, and back."""


def save_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    with open_atomic(path) as file:
        file.write(text.encode(errors=ERRORS))


def printable(name: str) -> str:
    """A file's name as any screen and file can take it."""
    readable = name.encode(errors=ERRORS).decode(errors="replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in readable)


def check_weights_name(output: str) -> None:
    """Errors: ValueError where an output is not named like a weights file."""
    if Path(output).suffix != ".safetensors":
        raise ValueError(f"expected output to be a .safetensors file, got {output!r}")
