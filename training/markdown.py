"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def format_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table in Markdown; cells are formatted by `str`."""
    lines = [
        ["", *(f" {cell} " if cell != "" else " " for cell in row), ""] for row in (header, *rows)
    ]
    return ["|".join(lines[0]), "|---" * len(header) + "|", *map("|".join, lines[1:])]
