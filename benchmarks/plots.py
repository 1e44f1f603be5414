"""What the measurements look like: cost and memory over pixels, and the ways side by side.

python -m benchmarks.plots measurements.json FOLDER     needs matplotlib
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.measure import Record

mpl.use("svg")
mpl.rcParams["svg.fonttype"] = "none"  # text stays text, and the files small
mpl.rcParams["svg.hashsalt"] = "scsnet"  # equal measurements, equal files
COLOURS = {"time": "#0b6e99", "memory": "#b3541e"}


def draw(records: list[Record], folder: Path) -> None:
    """growth.svg and peers.svg, of what was measured."""
    folder.mkdir(parents=True, exist_ok=True)
    grown = [r for r in records if r.get("section") == "growth"]
    if any("output" in r for r in grown):
        figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
        over_pixels(
            axes[0], [r for r in grown if r.get("from") == 128], "output", "decode 128² → n²"
        )
        over_pixels(axes[1], [r for r in grown if r.get("texture")], "source", "encode n²")
        figure.savefig(folder / "growth.svg", metadata={"Date": None})
        plt.close(figure)
    files = [r for r in records if r.get("section") == "files" and r.get("side") == 128]
    if files:
        figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
        side_by_side(axis, files)
        figure.savefig(folder / "peers.svg", metadata={"Date": None})
        plt.close(figure)


def over_pixels(axis: Axes, records: list[Record], key: str, title: str) -> None:
    """Seconds and MiB over the number of pixels, both logarithmic."""
    pixels = [r[key] ** 2 for r in records]
    seconds = [r["seconds"][0] for r in records]
    axis.loglog(pixels, seconds, "o-", color=COLOURS["time"], label="seconds")
    if key == "source":
        colour = [r["colour"] for r in records]
        axis.loglog(pixels, colour, "o:", color=COLOURS["time"], label="of it colour")
    middle = len(pixels) // 2
    linear = [seconds[middle] * p / pixels[middle] for p in pixels]
    axis.loglog(pixels, linear, "--", color="#999999", label="linear")
    axis.set_xticks(pixels, [f"{r[key]}²" for r in records])
    axis.minorticks_off()
    axis.set_ylabel("seconds", color=COLOURS["time"])
    axis.set_title(title)
    other = axis.twinx()
    amounts = [r["bytes"] / 2**20 for r in records]
    other.plot(pixels, amounts, "s-", color=COLOURS["memory"], label="MiB")
    other.set_ylim(0, 2 * max(amounts))
    other.set_ylabel("peak beside the result, MiB", color=COLOURS["memory"])
    axis.legend(loc="upper left", frameon=False)


def side_by_side(axis: Axes, records: list[Record]) -> None:
    """Seconds from file to file."""
    done = [r for r in records if "seconds" in r]
    done.sort(key=lambda r: statistics.median(r["seconds"]))
    middle = [statistics.median(r["seconds"]) for r in done]
    bars = axis.barh([r["way"] for r in done], middle, color=COLOURS["time"])
    axis.bar_label(bars, [f" {m:.2f} s" for m in middle])
    axis.set_xscale("log")
    axis.margins(x=0.15)
    axis.invert_yaxis()
    axis.set_title("a gray file of 128² to a coloured one of 512², automatic")


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
