"""What the cost grows with: output pixels, source pixels, windows, pictures of a video.

python -m benchmarks.growth outputs SOURCE SIDES | sources SIDES | video COUNT    one of them by itself, as JSON
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
from scsnet import SCSNet, encode_picture, encode_references, render
from scsnet.texture import encode_texture

SMALL = 128  # side of the picture whose output grows
SOURCE = 1024  # of a large one, which costs something by itself
WINDOW = 512  # side of the windows
FRAME, CHUNK = 128, 8  # of the video: side, pictures at a time


def timed(function: Callable[[], Any]) -> tuple[float, int]:
    """Seconds, and bytes of the peak."""

    def run() -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return peak(run)


def outputs(source: int, sides: list[int]) -> list[Record]:
    """One picture of that side, encoded once, decoded to squares of those sides, each once."""
    net, records = network(best()), []
    gray, _ = inputs(source, "automatic", 1)
    features = net.encode(gray)
    net.decode(features, (256, 256))
    for side in sides:
        size = (side, side)
        seconds, nbytes = timed(lambda size=size: net.decode(features, size))  # type: ignore[misc]
        result = 3 * 4 * side**2
        records.append(
            {
                "output": side,
                "from": source,
                "seconds": [seconds],
                "bytes": max(0, nbytes - result),
            }
        )
        print("output", source, side, seconds, nbytes - result, file=sys.stderr, flush=True)
    return records


def sources(sides: list[int]) -> list[Record]:
    """encode of squares of those sides: the colour branch, psi_E, and the peak beside what is kept."""
    net, records = network(best()), []
    net.encode(inputs(64, "automatic", 1)[0])
    for side in sides:
        gray, _ = inputs(side, "automatic", 1)
        features, nbytes = peak(lambda gray=gray: net.encode(gray))  # type: ignore[misc]
        start = time.perf_counter()
        net.encode(gray)
        seconds = time.perf_counter() - start
        texture = 0.0
        if features.texture is not None:
            start = time.perf_counter()
            encode_texture(net.initial, net.texture_encoder, gray)
            texture = time.perf_counter() - start
        kept = features.nbytes - features.luminance.nbytes
        records.append(
            {
                "source": side,
                "seconds": [seconds],
                "colour": max(0.0, seconds - texture),
                "texture": texture if features.texture is not None else None,
                "bytes": max(0, nbytes - kept),
            }
        )
        del features
    return records


def again(runs: int) -> list[Record]:
    """The same features at a second size, and windows of a large grid: decode alone."""
    net, records = network(best()), []
    gray, _ = inputs(SOURCE, "automatic", 1)
    encodings: list[float] = []
    features = clocked(encodings, lambda: net.encode(gray))
    large = (16 * SOURCE, 16 * SOURCE)
    cases: dict[str, Callable[[], Any]] = {
        f"{SOURCE}² → {SOURCE}²": lambda: net.decode(features, (SOURCE, SOURCE)),
        f"a second size: → {SOURCE * 3 // 2}²": lambda: net.decode(
            features, (SOURCE * 3 // 2, SOURCE * 3 // 2)
        ),
        f"a window of {WINDOW}² of {large[0]}²": lambda: net.decode(
            features, large, (5000, 7000, WINDOW, WINDOW)
        ),
        f"the window beside it, {WINDOW}²": lambda: net.decode(
            features, large, (5000, 7000 + WINDOW, WINDOW, WINDOW)
        ),
        f"a window of {2 * WINDOW}² of {large[0]}²": lambda: net.decode(
            features, large, (5000, 7000, 2 * WINDOW, 2 * WINDOW)
        ),
    }
    records.append({"case": f"encode {SOURCE}²", "seconds": encodings})
    for name, decode in cases.items():
        seconds: list[float] = []
        for _ in range(runs):
            clocked(seconds, decode)
        records.append({"case": name, "seconds": seconds})
    return records


def clocked(seconds: list[float], function: Callable[[], Any]) -> Any:
    """Calls, and appends how long it took."""
    start = time.perf_counter()
    result = function()
    seconds.append(time.perf_counter() - start)
    return result


def video(count: int) -> Record:
    """Frames of 128 x 128 to 512 x 512 in colours of one reference, eight at a time, each thrown away."""
    net = network(best())
    reference = encode_references(net, [torch.rand(1, 3, 128, 128)])
    generator = torch.Generator().manual_seed(1)
    frame(net, reference, generator)

    def frames() -> None:
        for _ in range(count // CHUNK):
            frame(net, reference, generator)

    seconds, nbytes = timed(frames)
    return {"frames": count, "seconds": [seconds], "bytes": nbytes}


def frame(net: SCSNet, reference: Any, generator: torch.Generator) -> None:
    """A chunk of the video."""
    rgb = torch.rand(CHUNK, 1, FRAME, FRAME, generator=generator)
    render(net, encode_picture(net, rgb, reference), (4 * FRAME, 4 * FRAME), dtype=torch.uint8)


@torch.inference_mode()
def measure(output_sides: list[int], source_sides: list[int], frames: list[int]) -> list[Record]:
    """All of it; what is measured once is said to be."""
    records: list[Record] = again(3)
    records += alone("growth", "outputs", SMALL, *output_sides)
    records += alone("growth", "outputs", SOURCE, *(s for s in output_sides if SOURCE < s <= 4096))
    records += alone("growth", "sources", *source_sides)
    records += [alone("growth", "video", count) for count in frames]
    return [{"section": "growth", **record} for record in records]


def tables(records: list[Record]) -> str:
    """Four of them."""
    cases = [[r["case"], spread(r["seconds"])] for r in records if "case" in r]
    grown = [
        [
            f"{r['from']}² → {r['output']}²",
            f"{r['seconds'][0]:.2f}",
            f"{r['seconds'][0] / r['output'] ** 2 * 1e9:.0f}",
            f"{r['bytes'] / 2**20:.0f}",
        ]
        for r in records
        if "output" in r
    ]
    encoded = [
        [
            f"{r['source']}²",
            f"{r['seconds'][0]:.3f}",
            f"{r['colour']:.3f}",
            "in decode" if r["texture"] is None else f"{r['texture']:.3f}",
            f"{r['bytes'] / 2**20:.0f}",
        ]
        for r in records
        if "source" in r
    ]
    films = [
        [
            str(r["frames"]),
            f"{r['seconds'][0]:.2f}",
            f"{r['seconds'][0] / r['frames'] * 1e3:.0f}",
            f"{r['bytes'] / 2**20:.0f}",
        ]
        for r in records
        if "frames" in r
    ]
    beside = "peak beside the result, MiB"
    return "\n\n".join(
        [
            markdown([f"one picture of {SOURCE}²", "seconds"], cases),
            markdown(["decode", "seconds", "ns per output pixel", beside], grown),
            markdown(["encode", "seconds", "colour branch", "texture", beside], encoded),
            markdown(["frames, 128 → 512", "seconds", "ms per frame", "peak, MiB"], films),
        ]
    )


@torch.inference_mode()
def main(what: str, *numbers: str) -> None:
    """The process of its own."""
    values = [int(n) for n in numbers]
    done: dict[str, Callable[[], Any]] = {
        "outputs": lambda: outputs(values[0], values[1:]),
        "sources": lambda: sources(values),
        "video": lambda: video(values[0]),
    }
    print(json.dumps(done[what]()))


if __name__ == "__main__":
    main(*sys.argv[1:])
