"""Files that are whole or not there."""

from __future__ import annotations

from pathlib import Path


def save_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
