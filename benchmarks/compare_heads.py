"""CPM against the heads of Meta-SR and LIIF on the same 64 channels of features, 128 -> 512, in turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.measure import Clock, Record, in_turns, markdown, spread, times
from benchmarks.pictures import best
from training.models.upscaling_heads import CHANNELS, LIIF, ContinuousPixelMapping, MetaSR

SIDE, SIZE = 128, (512, 512)
BANDS = 4096  # output pixels at a time: 28 MiB of predicted weights in float32 was fastest


def heads(dtype: torch.dtype) -> dict[str, Callable[[Clock], Any]]:
    """Return a timed run of each head."""
    torch.manual_seed(0)
    head, meta, liif = (m.eval().to(dtype) for m in (ContinuousPixelMapping(), MetaSR(), LIIF()))
    planes = torch.randn(1, CHANNELS, SIDE, SIDE).to(dtype)
    last = planes.contiguous(memory_format=torch.channels_last)
    return {
        "CPM": lambda c: c.time("", lambda: head(last, SIZE)),
        "Meta-SR": lambda c: c.time("", lambda: meta(planes, SIZE)),
        "Meta-SR, in bands": lambda c: c.time("", lambda: meta(planes, SIZE, BANDS)),
        "LIIF": lambda c: c.time("", lambda: liif(planes, SIZE)),
    }


@torch.inference_mode()
def measure(runs: int) -> list[Record]:
    """Measure in float32, and in the dtype chosen for this CPU."""
    return [
        {
            "section": "heads",
            "way": name,
            "dtype": str(dtype).removeprefix("torch."),
            "seconds": clock.seconds[""],
        }
        for dtype in dict.fromkeys((torch.float32, best()))
        for name, clock in in_turns(heads(dtype), runs).items()
    ]


def tables(records: list[Record]) -> str:
    """Format seconds, and the ratio to CPM."""
    formats = list(dict.fromkeys(r["dtype"] for r in records))
    seconds = {(r["way"], r["dtype"]): r["seconds"] for r in records}
    rows = []
    for way in dict.fromkeys(r["way"] for r in records):
        cells = [way]
        for dtype in formats:
            cells += [
                spread(seconds[way, dtype]),
                times(seconds[way, dtype], seconds["CPM", dtype]),
            ]
        rows.append(cells)
    head = ["head", *(cell for dtype in formats for cell in (dtype, "CPM is times as fast"))]
    return markdown(head, rows)
