"""Time and peak memory of SCSNet and its peers, in one run.

    python benchmarks/benchmark.py [--ddcolor CHECKOUT] [--json FILE]

Sections: heads (CPM, Meta-SR, LIIF), pictures (ours and the formulas), files (from file to file, ours, the formulas,
DDColor + ESRGAN), growth (output and source pixels, windows, video), startup. Where ways are compared on small
pictures they take turns in one process: median and range. What takes long runs once. Peak memory is the highest
resident size of a fresh process, less that before the run.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import cascade, compare_heads, growth, pictures, startup
from benchmarks.measure import Record

OUTPUTS = [512, 1024, 2048, 4096, 8192, 16384]
SOURCES = [64, 128, 256, 512, 1024, 2048]
FRAMES = [8, 240]


def sections(
    options: argparse.Namespace,
) -> dict[str, tuple[Callable[[], list[Record]], Callable[[list[Record]], str]]]:
    """Return the functions that measure each section and format its tables."""
    runs, sizes = options.runs, options.sizes
    return {
        "startup": (lambda: startup.measure(runs), startup.tables),
        "heads": (lambda: compare_heads.measure(runs), compare_heads.tables),
        "pictures": (lambda: pictures.measure(sizes, runs), pictures.tables),
        "files": (
            lambda: cascade.measure([s for s in sizes if s <= 512], runs, options.ddcolor),
            cascade.tables,
        ),
        "growth": (
            lambda: growth.measure(options.outputs, options.sources, options.frames),
            growth.tables,
        ),
    }


def main() -> None:
    """Measure, print, and write JSON to --json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ddcolor", type=Path, help="a checkout of github.com/piddnad/DDColor")
    names = list(sections(argparse.Namespace(runs=0, sizes=[])))
    parser.add_argument("--sections", nargs="+", default=names, choices=names)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--outputs", type=int, nargs="+", default=OUTPUTS)
    parser.add_argument("--sources", type=int, nargs="+", default=SOURCES)
    parser.add_argument("--frames", type=int, nargs="+", default=FRAMES)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the measurements to FILE")
    options = parser.parse_args()
    machine = (
        f"{platform.machine()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    )
    print(machine, flush=True)
    records: list[Record] = [{"section": "machine", "machine": machine}]
    for name in options.sections:
        measure, tables = sections(options)[name]
        start = time.perf_counter()
        measured = measure()
        records += measured
        print(f"\n## {name}\n\n{tables(measured)}\n", flush=True)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
        if options.json:
            options.json.write_text(json.dumps(records, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
