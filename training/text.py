"""Text files, names of files for messages, and tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from scsnet.atomic_write import open_atomic

ERRORS = "surrogateescape"
"""Error handler that keeps the bytes of names that are not UTF-8."""


def save_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with open_atomic(path) as file:
        file.write(text.encode(errors=ERRORS))


def make_printable(name: str) -> str:
    """Return a name with replacement characters for what cannot be printed."""
    readable = name.encode(errors=ERRORS).decode(errors="replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in readable)


def format_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table in Markdown; cells are formatted by `str`."""
    cells = [[f" {cell} " if cell != "" else " " for cell in row] for row in (header, *rows)]
    first, *others = [f"|{'|'.join(row)}|" for row in cells]
    return [first, "|---" * len(header) + "|", *others]
