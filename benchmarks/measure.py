"""Measure seconds and peak memory, in turns or in fresh processes, and format them."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")
Record = dict[str, Any]
"""One measurement: "section", what was measured, and "seconds" (a list) or "bytes"."""
Note = Callable[[str, float], None]
"""Called with the name of a part and its seconds."""


class Clock:
    """Seconds per part, over several runs."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def time(self, part: str, function: Callable[[], T]) -> T:
        """Call the function, record its seconds, and return its result."""
        start = time.perf_counter()
        result = function()
        self.seconds.setdefault(part, []).append(time.perf_counter() - start)
        return result


def in_turns(
    ways: Mapping[str, Callable[[Clock], object]], runs: int, warm: bool = True
) -> dict[str, Clock]:
    """Run every way once as a warm-up if `warm`, then `runs` times each, in turns."""
    clocks = {name: Clock() for name in ways}
    if warm:
        for way in ways.values():
            way(Clock())
    for _ in range(runs):
        for name, way in ways.items():
            way(clocks[name])
    return clocks


def resident() -> int:
    """Return the resident size of this process in bytes."""
    import psutil

    return psutil.Process().memory_info().rss


def peak(function: Callable[[], T]) -> tuple[T, int]:
    """Return the result, and the peak of the resident size above that before the call, in bytes."""
    before, highest, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.002):
            highest = max(highest, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = function()
        highest = max(highest, resident())
    finally:
        done.set()
        watcher.join()
    return result, max(0, highest - before)


def alone(module: str, *arguments: object) -> Any:
    """Run `python -m benchmarks.<module> <arguments>` and return the JSON of its last line."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def free_memory() -> int:
    """Return the available memory in bytes."""
    import psutil

    return psutil.virtual_memory().available


def spread(seconds: list[float]) -> str:
    """Format the median, and the range if there are several."""
    middle = statistics.median(seconds)
    if len(seconds) == 1:
        return f"{middle:.3f}"
    return f"{middle:.3f} ({min(seconds):.3f}-{max(seconds):.3f})"


def times(slow: list[float] | None, fast: list[float] | None) -> str:
    """Format the ratio of medians; empty if either is missing."""
    if not slow or not fast:
        return ""
    return f"{statistics.median(slow) / statistics.median(fast):.1f}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Format a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
