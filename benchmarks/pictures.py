"""Time and memory of whole pictures: ours in the chosen dtype and in float32, and the formulas.

python -m benchmarks.pictures WAY SIDE MODE BATCH    one of them by itself, as JSON
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import straightforward
from benchmarks.measure import (
    Clock,
    Record,
    alone,
    free_memory,
    in_turns,
    markdown,
    peak,
    spread,
    times,
)
from scsnet import SCSNet
from scsnet.device import choose_dtype

SCALE = 4
MODES = ("automatic", "referential")
INTERLEAVED = 128  # up to here the ways take turns, several times; beyond, each runs once
FORMULAS = "formulas"
Run = Callable[[Clock], None]


def best() -> torch.dtype:
    """Return the dtype that is chosen for this CPU."""
    return choose_dtype(torch.device("cpu"))


def name_of(dtype: torch.dtype) -> str:
    """Return the label of ours in that dtype."""
    return "ours " + str(dtype).removeprefix("torch.")


def network(dtype: torch.dtype) -> SCSNet:
    """Return the full model with random weights: speed does not depend on them."""
    torch.manual_seed(0)
    return SCSNet().eval().requires_grad_(False).to(dtype)


def inputs(side: int, mode: str, batch: int) -> tuple[Tensor, list[Tensor]]:
    """Return normalised L of gray squares, and in referential mode a reference of 128 x 128 for each."""
    generator = torch.Generator().manual_seed(1)
    gray = torch.rand(batch, 1, side, side, generator=generator) * 2 - 1
    reference = torch.rand(batch, 3, 128, 128, generator=generator) * 2 - 1
    return gray, [reference] if mode == "referential" else []


def run_of(way: str, side: int, mode: str, batch: int) -> Run:
    """Return a run that encodes and decodes once, each timed."""
    gray, references = inputs(side, mode, batch)
    size = (side * SCALE, side * SCALE)
    net = network(torch.float32 if way == FORMULAS else getattr(torch, way.removeprefix("ours ")))

    def formulas(clock: Clock) -> None:
        features = clock.time("encode", lambda: straightforward.encode(net, gray, references))
        clock.time("decode", lambda: straightforward.decode(net, features, gray, size))

    def ours(clock: Clock) -> None:
        features = clock.time(
            "encode",
            lambda: net.encode(gray, net.encode_reference(references) if references else None),
        )
        clock.time("decode", lambda: net.decode(features, size))

    return formulas if way == FORMULAS else ours


def fits(side: int, batch: int) -> bool:
    """Return whether the formulas fit into the free memory."""
    need = straightforward.decode_bytes((side * SCALE, side * SCALE))
    return 2 * batch * need < free_memory()


def ways(side: int, mode: str, batch: int) -> list[str]:
    """Return what is measured: everything for small pictures, without what takes minutes for large ones."""
    chosen = [name_of(best())]
    if best() != torch.float32 and (side <= INTERLEAVED or (side <= 512 and batch == 1)):
        chosen.append(name_of(torch.float32))
    affordable = batch == 1 and side <= INTERLEAVED
    if (affordable or mode == "automatic") and fits(side, batch):
        chosen.append(FORMULAS)
    return chosen


@torch.inference_mode()
def once(way: str, side: int, mode: str, batch: int) -> Record:
    """Return seconds of each part and peak memory of one run, after a small warm-up."""
    run_of(way, 8, mode, 1)(Clock())
    run, clock = run_of(way, side, mode, batch), Clock()
    _, nbytes = peak(lambda: run(clock))
    return {"seconds": clock.seconds, "bytes": nbytes}


@torch.inference_mode()
def measure(sizes: list[int], runs: int) -> list[Record]:
    """Measure all sizes, both modes, batches of 1 and 8."""
    records = []
    for side in sizes:
        for mode in MODES:
            for batch in (1, 8):
                if batch > 1 and (side > 512 or (side > INTERLEAVED and mode != "automatic")):
                    continue  # minutes, for nothing that the others don't say
                case = {"section": "pictures", "side": side, "mode": mode, "batch": batch}
                chosen = ways(side, mode, batch)
                clocks = {}
                if side <= INTERLEAVED:
                    count = runs if batch == 1 else max(1, runs // 3)
                    runners = {way: run_of(way, side, mode, batch) for way in chosen}
                    clocks = in_turns(runners, count, warm=batch == 1)
                for way in chosen:
                    if way == FORMULAS and side <= INTERLEAVED and batch > 1:
                        result: Record = {"bytes": None, "seconds": {}}
                    else:
                        result = alone("pictures", way, side, mode, batch)
                    seconds = clocks[way].seconds if clocks else result["seconds"]
                    both = [sum(pair) for pair in zip(*seconds.values(), strict=True)]
                    for part, values in {**seconds, "both": both}.items():
                        records.append({**case, "way": way, "part": part, "seconds": values})
                    records.append({**case, "way": way, "bytes": result["bytes"]})
                    print(case, way, spread(both), result["bytes"], file=sys.stderr, flush=True)
    return records


def tables(records: list[Record]) -> str:
    """Format seconds with ratios, and peak memory."""
    cases = list(dict.fromkeys((r["side"], r["mode"], r["batch"]) for r in records))
    found = {
        (r["side"], r["mode"], r["batch"], r["way"], r.get("part")): r.get(
            "seconds", r.get("bytes")
        )
        for r in records
    }
    fast, exact = name_of(best()), name_of(torch.float32)
    head = ["picture", "mode", "batch", "part", "formulas", fast, "times", exact, "times"]
    rows, memory = [], []
    for side, mode, batch in cases:
        label = [f"{side} → {side * SCALE}", mode, str(batch)]
        for part in ("encode", "decode", "both"):
            plain, a, b = (
                found.get((side, mode, batch, way, part)) for way in (FORMULAS, fast, exact)
            )
            cells = [spread(s) if s else "" for s in (plain, a, b)]
            rows.append(
                [*label, part, cells[0], cells[1], times(plain, a), cells[2], times(plain, b)]
            )
        amounts = [found.get((side, mode, batch, way, None)) for way in (FORMULAS, fast, exact)]
        memory.append([*label, *(f"{n / 2**20:.0f}" if n else "" for n in amounts)])
    lines = ["Seconds:", "", markdown(head, rows), "", "Peak memory beside the weights, MiB:", ""]
    lines.append(markdown(["picture", "mode", "batch", "formulas", fast, exact], memory))
    return "\n".join(lines)


if __name__ == "__main__":
    chosen, side, mode, batch = sys.argv[1:]
    print(json.dumps(once(chosen, int(side), mode, int(batch))))
