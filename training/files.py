"""Files that are whole or not there."""

from __future__ import annotations

from pathlib import Path

from scsnet.wholefile import whole_file


def save_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())
