"""Time to import the package after torch, and to load the bundled weights from a warm disk.

python -m benchmarks.startup     once, as JSON
"""

from __future__ import annotations

import json
import time

from benchmarks.measure import Record, alone, markdown, spread

WHAT = {
    "import": "`import scsnet` and all that it uses, after torch, numpy and Pillow",
    "load": '`load("bundled")`, bfloat16 where the CPU has it',
}


def once() -> dict[str, float]:
    """Return the seconds of each, in a process that has imported torch only."""
    import einops
    import numpy
    import torch
    import torch.nn.functional
    from PIL import Image

    assert all((einops, numpy, torch, Image))
    start = time.perf_counter()
    import scsnet.checkpoint
    import scsnet.device
    import scsnet.pictures
    import scsnet.pipeline

    imported = time.perf_counter()
    scsnet.checkpoint.load("bundled", dtype=scsnet.device.choose_dtype(torch.device("cpu")))
    return {"import": imported - start, "load": time.perf_counter() - imported}


def measure(runs: int) -> list[Record]:
    """Measure in fresh processes."""
    results = [alone("startup") for _ in range(runs)]
    return [
        {"section": "startup", "what": what, "seconds": [r[what] for r in results]} for what in WHAT
    ]


def tables(records: list[Record]) -> str:
    """Format seconds."""
    rows = [[WHAT[r["what"]], spread(r["seconds"])] for r in records]
    return markdown(["start-up", "seconds"], rows)


if __name__ == "__main__":
    print(json.dumps(once()))
