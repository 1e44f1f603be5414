"""What the ComfyUI registry ships: the files that git knows and `.comfyignore` leaves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def archived() -> list[str]:
    """Their paths, of the checkout as it is now. Skips the test where that cannot be known."""
    pathspec = pytest.importorskip("pathspec", reason="pip install pathspec")
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    files = [name for name in answer.split("\0") if name and (ROOT / name).is_file()]
    ignored = pathspec.GitIgnoreSpec.from_lines((ROOT / ".comfyignore").read_text().splitlines())
    return [name for name in files if not ignored.match_file(name)]


def unpack(folder: Path) -> Path:
    """Copies them into `folder`."""
    for name in archived():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    return folder
