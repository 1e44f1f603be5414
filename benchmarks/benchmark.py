"""Time and peak memory of encode and decode, against the straightforward formulas, in one run.

    python benchmarks/benchmark.py [--sizes 128 512 1024] [--runs 5] [--json FILE]

Both ways see the same picture and weights. Time: the two take turns, medians and the range. Memory: the
highest resident size of a process of its own that encodes and decodes once, less what it held before.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import straightforward
from scsnet import SCSNet
from scsnet.device import choose_dtype

SCALE = 4
SMALL = 128  # up to here pictures are made several times, and in both modes
LARGE = 512  # beyond, our float32 is left out
Timing = dict[str, list[float]]


def network(dtype: torch.dtype) -> SCSNet:
    """The full model with random weights: speed does not depend on them."""
    torch.manual_seed(0)
    net = SCSNet().eval().requires_grad_(False)
    return net.to(dtype)


def inputs(side: int, referential: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A gray picture of that side, and a reference of 128 x 128."""
    generator = torch.Generator().manual_seed(1)
    reference = torch.rand(1, 3, 128, 128, generator=generator) * 2 - 1
    return (
        torch.rand(1, 1, side, side, generator=generator) * 2 - 1,
        [reference] if referential else [],
    )


def timed(function: Callable[[], Any], seconds: list[float]) -> Any:
    """Call, and note how long it took."""
    start = time.perf_counter()
    result = function()
    seconds.append(time.perf_counter() - start)
    return result


def ours(net: SCSNet, side: int, referential: bool, times: Timing) -> torch.Tensor:
    """One picture through `SCSNet.encode` and `SCSNet.decode`."""
    luminance, labs = inputs(side, referential)

    def encode() -> Any:
        return net.encode(luminance, net.encode_reference(labs) if labs else None)

    features = timed(encode, times.setdefault("encode", []))
    size = (side * SCALE, side * SCALE)
    return timed(lambda: net.decode(features, size), times.setdefault("decode", []))


def plain(net: SCSNet, side: int, referential: bool, times: Timing) -> torch.Tensor:
    """The same through the formulas as written."""
    luminance, labs = inputs(side, referential)
    features = timed(
        lambda: straightforward.encode(net, luminance, labs), times.setdefault("encode", [])
    )
    size = (side * SCALE, side * SCALE)
    return timed(
        lambda: straightforward.decode(net, features, luminance, size),
        times.setdefault("decode", []),
    )


def resident() -> int:
    """Bytes of this process in memory now."""
    import psutil

    return psutil.Process().memory_info().rss


def measure_memory(way: str, side: int, dtype: str) -> int:
    """Highest resident size while one picture is made, less before; run in a process of its own."""
    torch_dtype = getattr(torch, dtype)
    net = network(torch_dtype)
    with torch.inference_mode():
        (plain if way == "plain" else ours)(net, 64, False, {})
        before, highest, done = resident(), 0, threading.Event()

        def watch() -> None:
            nonlocal highest
            while not done.wait(0.005):
                highest = max(highest, resident())

        watcher = threading.Thread(target=watch)
        watcher.start()
        (plain if way == "plain" else ours)(net, side, False, {})
        done.set()
        watcher.join()
    return max(0, highest - before)


def memory_of(way: str, side: int, dtype: str) -> int:
    """`measure_memory` in a fresh process."""
    command = [sys.executable, __file__, "--memory", way, str(side), dtype]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(output.strip().splitlines()[-1])


def fits(side: int) -> bool:
    """Whether the straightforward decode has room on this machine."""
    import psutil

    need = straightforward.decode_bytes((side * SCALE, side * SCALE))
    return 2 * need < psutil.virtual_memory().available


def compare(side: int, referential: bool, runs: int, dtype: torch.dtype) -> dict[str, Any]:
    """One row: ours in `dtype` and in float32 against the formulas in float32, taking turns."""
    ways: dict[str, Callable[[Timing], torch.Tensor]] = {}
    fast, exact = network(dtype), network(torch.float32)
    ways["ours"] = lambda t: ours(fast, side, referential, t)
    if dtype != torch.float32 and side <= LARGE:
        ways["ours float32"] = lambda t: ours(exact, side, referential, t)
    reference = SCSNet().eval().requires_grad_(False)
    reference.load_state_dict(exact.state_dict())
    if fits(side):
        ways["plain"] = lambda t: plain(reference, side, referential, t)
    times: dict[str, Timing] = {name: {} for name in ways}
    with torch.inference_mode():
        if side <= SMALL:  # larger ones take so long that a first time makes no difference
            for way in ways.values():
                way({})
        for _ in range(runs):
            for name, way in ways.items():
                way(times[name])
    row: dict[str, Any] = {"side": side, "mode": "referential" if referential else "automatic"}
    for name, timing in times.items():
        totals = [a + b for a, b in zip(timing["encode"], timing["decode"], strict=True)]
        for part, seconds in {**timing, "both": totals}.items():
            row[f"{name} {part}"] = [statistics.median(seconds), min(seconds), max(seconds)]
    return row


def seconds(entry: list[float] | None) -> str:
    """Median and range; without an entry the formulas had no room."""
    return "does not fit" if entry is None else f"{entry[0]:.3f} ({entry[1]:.3f}-{entry[2]:.3f})"


def ratio(row: dict[str, Any], part: str, way: str) -> str:
    """How many times as fast as the formulas."""
    if f"plain {part}" not in row or f"{way} {part}" not in row:
        return ""
    return f"{row[f'plain {part}'][0] / row[f'{way} {part}'][0]:.1f}"


def table(rows: list[dict[str, Any]], dtype: str) -> str:
    """Markdown."""
    lines = [
        f"| picture | mode | part | formulas, float32 | ours, {dtype} | times | ours, float32 | times |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        picture = f"{row['side']} → {row['side'] * SCALE}"
        for part in ("encode", "decode", "both"):
            exact = row.get(f"ours float32 {part}")
            lines.append(
                f"| {picture} | {row['mode']} | {part} | {seconds(row.get(f'plain {part}'))} | "
                f"{seconds(row[f'ours {part}'])} | {ratio(row, part, 'ours')} | "
                f"{seconds(exact) if exact else ''} | {ratio(row, part, 'ours float32')} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 512, 1024])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", nargs=3, metavar=("WAY", "SIDE", "DTYPE"), help="internal")
    options = parser.parse_args()
    if options.memory:
        way, side, name = options.memory
        print(measure_memory(way, int(side), name))
        return
    dtype = choose_dtype(torch.device("cpu"))
    name = str(dtype).removeprefix("torch.")
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    rows = []
    for side in options.sizes:
        for referential in (False, True) if side <= SMALL else (False,):
            rows.append(compare(side, referential, options.runs if side <= SMALL else 1, dtype))
    print("\nSeconds, median (range):\n\n" + table(rows, name) + "\n\nPeak memory in MiB:\n")
    print("| picture | formulas, float32 | ours, " + name + " | ours, float32 |\n|---|---|---|---|")
    for side in options.sizes:
        peaks = {
            "plain": memory_of("plain", side, "float32") >> 20 if fits(side) else "does not fit",
            "ours": memory_of("ours", side, name) >> 20,
            "float32": memory_of("ours", side, "float32") >> 20 if side <= LARGE else "not run",
        }
        rows.append({"memory of": side} | peaks)
        cells = " | ".join(str(v) for v in peaks.values())
        print(f"| {side} → {side * SCALE} | {cells} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
