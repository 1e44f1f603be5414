"""How time and memory grow with output pixels, source pixels, windows and the frames of a video.

python -m benchmarks.growth outputs SOURCE SIDES | sources SIDES | video COUNT    one of them, in this process, as JSON
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.measure import Record, alone, markdown, peak, spread
from benchmarks.pictures import best, inputs, network
from scsnet import encode_picture, encode_references, render

SMALL, SOURCE = 128, 1024  # sides of the pictures that are enlarged
WINDOW = 512
FRAME, CHUNK = 128, 8  # side of a video frame, and frames per batch


def measure_once(function: Callable[[], Any], kept: Callable[[Any], int] = lambda _: 0) -> Record:
    """Return seconds and peak bytes of one call, less the bytes of its result by `kept`."""
    start = time.perf_counter()
    result, nbytes = peak(function)
    seconds = time.perf_counter() - start
    return {"seconds": [seconds], "bytes": max(0, nbytes - kept(result))}


def outputs(source: int, sides: list[int]) -> list[Record]:
    """Decode one picture of side `source` to squares of `sides`."""
    net = network(best())
    features = net.encode(inputs(source, "automatic", 1)[0])
    net.decode(features, (256, 256))
    return [
        {"what": f"decode {source}² → {side}²", "pixels": side**2}
        | measure_once(lambda side=side: net.decode(features, (side, side)), lambda t: t.nbytes)  # type: ignore[misc]
        for side in sides
    ]


def sources(sides: list[int]) -> list[Record]:
    """Encode squares of `sides`."""
    net = network(best())
    net.encode(inputs(64, "automatic", 1)[0])
    records = []
    for side in sides:
        gray, _ = inputs(side, "automatic", 1)
        record = measure_once(lambda gray=gray: net.encode(gray), lambda f: f.nbytes)  # type: ignore[misc]
        records.append({"what": f"encode {side}²", "pixels": side**2} | record)
    return records


def windows(runs: int) -> list[Record]:
    """Decode windows of a large grid from one picture that is encoded once."""
    net, large = network(best()), (16 * SOURCE, 16 * SOURCE)
    features = net.encode(inputs(SOURCE, "automatic", 1)[0])
    records = []
    for side in (WINDOW, 2 * WINDOW):
        record: Record = {"what": f"a window of {side}² of {large[0]}²", "pixels": side**2}
        window = (large[0] // 3, large[1] // 2, side, side)
        each = [measure_once(lambda w=window: net.decode(features, large, w)) for _ in range(runs)]  # type: ignore[misc]
        records.append(record | {"seconds": [s for r in each for s in r["seconds"]]})
    return records


def video(count: int) -> list[Record]:
    """Enlarge `count` frames four times in colours of one reference, eight at a time."""
    net = network(best())
    reference = encode_references(net, [torch.rand(1, 3, 128, 128)])
    frames, size = torch.rand(CHUNK, 1, FRAME, FRAME), (4 * FRAME, 4 * FRAME)

    def run(count: int) -> None:
        for _ in range(0, count, CHUNK):
            render(net, encode_picture(net, frames, reference), size, dtype=torch.uint8)

    run(CHUNK)
    name = f"{count} frames {FRAME}² → {size[0]}²"
    return [{"what": name, "pixels": count * size[0] ** 2} | measure_once(lambda: run(count))]


@torch.inference_mode()
def measure(output_sides: list[int], source_sides: list[int], frames: list[int]) -> list[Record]:
    """Measure everything; all but the windows once, each kind in a fresh process."""
    records: list[Record] = windows(3)
    records += alone("growth", "outputs", SMALL, *output_sides)
    records += alone("growth", "outputs", SOURCE, *(s for s in output_sides if SOURCE < s <= 4096))
    records += alone("growth", "sources", *source_sides)
    for count in frames:
        records += alone("growth", "video", count)
    return [{"section": "growth", **record} for record in records]


def tables(records: list[Record]) -> str:
    """Format seconds, time per pixel and peak memory."""
    rows = [
        [
            r["what"],
            spread(r["seconds"]),
            f"{min(r['seconds']) / r['pixels'] * 1e9:.0f}",
            f"{r['bytes'] / 2**20:.0f}" if "bytes" in r else "",
        ]
        for r in records
    ]
    return markdown(["", "seconds", "ns per pixel", "peak beside the result, MiB"], rows)


if __name__ == "__main__":
    numbers = [int(n) for n in sys.argv[2:]]
    with torch.inference_mode():
        kinds: dict[str, Callable[[], list[Record]]] = {
            "outputs": lambda: outputs(numbers[0], numbers[1:]),
            "sources": lambda: sources(numbers),
            "video": lambda: video(numbers[0]),
        }
        print(json.dumps(kinds[sys.argv[1]]()))
