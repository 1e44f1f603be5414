"""Compare encode and decode with the peak operations and bandwidth of the machine.

    python benchmarks/roofline.py [--side 128] [--scale 4] [--batch 1] [--dtypes bfloat16 float32]
                                  [--device auto] [--runs 9]

Counts operations and bytes (`operations.py`), measures two ceilings, the largest product of matrices per second
and the fastest copy, and the times of both parts. The bound is the time that the operations or the bytes
take at the ceiling, whichever is longer; what is reached is the bound over the measured time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import operations
from scsnet import SCSNet
from scsnet.cpm import enable_triton
from scsnet.device import DTYPES, choose_device

MATRIX = {"cpu": 2048, "cuda": 8192}  # side of the product that is timed
COPIED = {"cpu": 2**28, "cuda": 2**31}  # bytes


class Ceiling(NamedTuple):
    """Peak operations and bytes per second."""

    operations: float
    bytes: float


def seconds(function: Callable[[], object], device: torch.device, runs: int) -> list[float]:
    """Return the seconds of each run, synchronised with the device, after two warm-ups."""
    taken = []
    for _ in range(runs + 2):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    return taken[2:]


def ceiling(device: torch.device, dtype: torch.dtype, runs: int) -> Ceiling:
    """Measure the best of several runs; bytes read and written both count."""
    side = MATRIX.get(device.type, 2048)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = min(seconds(lambda: a @ b, device, runs))
    source = torch.zeros(COPIED.get(device.type, 2**28), dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    copy = min(seconds(lambda: target.copy_(source), device, runs))
    return Ceiling(2 * side**3 / product, 2 * source.nbytes / copy)


def bound(work: operations.Work, batch: int, itemsize: int, top: Ceiling) -> float:
    """Return the lower bound of the time in seconds."""
    return batch * max(work.operations / top.operations, work.bytes(itemsize) / top.bytes)


def reached(
    side: int, scale: float, batch: int, dtype: torch.dtype, device: torch.device, runs: int
) -> list[str]:
    """Measure encode and decode; return one Markdown row each."""
    torch.manual_seed(0)
    net = SCSNet().eval().requires_grad_(False).to(device, dtype)
    luminance = torch.rand(batch, 1, side, side, device=device) * 2 - 1
    size = (round(side * scale), round(side * scale))
    top = ceiling(device, dtype, runs)
    features = net.encode(luminance)
    parts = {
        operations.encode(net.config, (side, side)): lambda: net.encode(luminance),
        operations.decode(net.config, (side, side), size): lambda: net.decode(features, size),
    }
    lines = []
    for work, function in parts.items():
        taken = seconds(function, device, runs)
        middle, itemsize = statistics.median(taken), dtype.itemsize
        least = bound(work, batch, itemsize, top)
        cells = (
            str(dtype).removeprefix("torch."),
            f"{side} → {size[0]}",
            str(batch),
            work.name,
            f"{batch * work.operations / 1e9:.1f}",
            f"{batch * work.bytes(itemsize) / 1e6:.0f}",
            f"{top.operations / 1e9:.0f}",
            f"{top.bytes / 1e9:.1f}",
            f"{1e3 * least:.2f}",
            f"{1e3 * middle:.2f} ({1e3 * min(taken):.2f}-{1e3 * max(taken):.2f})",
            f"{100 * least / middle:.0f} %",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


HEAD = (
    "| format | picture | batch | part | GFLOP | MB | GFLOP/s at most | GB/s at most | bound, ms "
    "| ms, median (range) | reached |\n" + "|---" * 11 + "|"
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--scale", type=float, default=4)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["bfloat16", "float32"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--triton", action="store_true", help="use the Triton kernel of CPM")
    options = parser.parse_args()
    enable_triton(options.triton)
    device = choose_device(options.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(f"{where}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}\n\n{HEAD}")
    with torch.inference_mode():
        for name in options.dtypes:
            arguments = (
                options.side,
                options.scale,
                options.batch,
                DTYPES[name],
                device,
                options.runs,
            )
            for line in reached(*arguments):
                print(line, flush=True)


if __name__ == "__main__":
    main()
