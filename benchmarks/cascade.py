"""From file to file, against what one would run otherwise: DDColor, then ESRGAN x4.

DDColor comes from the user's own checkout (github.com/piddnad/DDColor; it imports timm and opencv), through its own
pipeline at its own 512 x 512; RRDBNet as spandrel builds it (which imports torchvision). Random weights.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import straightforward
from benchmarks.measure import ROOT, Clock, Record, in_turns, markdown, spread, times
from benchmarks.pictures import FORMULAS, SCALE, best, name_of, network
from scsnet import encode_picture, render
from scsnet.color import denormalize_lab, lab_to_rgb
from scsnet.pictures import read_picture, write_picture
from scsnet.pipeline import extract_luminance

PHOTO = ROOT / "samples" / "Colorado1941.png"
SIZES = {"tiny": "convnext-t", "large": "convnext-l"}
Way = Callable[[Path, Path], None]
Colorizer = Callable[[np.ndarray], np.ndarray]
"""(H, W, 3) uint8, blue before green before red -> the same in colour."""


def ours(dtype: torch.dtype) -> Way:
    """Read, colorize, enlarge, write."""
    net = network(dtype)

    def way(source: Path, target: Path) -> None:
        rgb = torch.from_numpy(read_picture(source).rgb).permute(2, 0, 1)[None] / 255
        features = encode_picture(net, rgb)
        size = (SCALE * rgb.shape[2], SCALE * rgb.shape[3])
        picture = render(net, features, size, dtype=torch.uint8)
        write_picture(target, picture[0].permute(1, 2, 0).numpy(), overwrite=True)

    return way


def formulas() -> Way:
    """The same through the formulas as written, in float32."""
    net = network(torch.float32)

    def way(source: Path, target: Path) -> None:
        rgb = torch.from_numpy(read_picture(source).rgb).permute(2, 0, 1)[None] / 255
        gray = extract_luminance(net, rgb)
        size = (SCALE * rgb.shape[2], SCALE * rgb.shape[3])
        planes = straightforward.decode(net, straightforward.encode(net, gray), gray, size)
        picture = lab_to_rgb(denormalize_lab(planes, net.config), clip=True).mul(255).round().byte()
        write_picture(target, picture[0].permute(1, 2, 0).numpy(), overwrite=True)

    return way


def ddcolor(checkout: Path, size: str) -> Colorizer:
    """DDColor of that size. Errors: ImportError for what it lacks."""
    if str(checkout) not in sys.path:
        sys.path.append(str(checkout))
    from ddcolor import ColorizationPipeline, DDColor

    torch.manual_seed(0)
    net = DDColor(
        encoder_name=SIZES[size],
        decoder_name="MultiScaleColorDecoder",
        input_size=[512, 512],
        num_output_channels=2,
        last_norm="Spectral",
        do_normalize=False,
        num_queries=100,
        num_scales=3,
        dec_layers=9,
    )
    return ColorizationPipeline(net, input_size=512, device=torch.device("cpu")).process


def esrgan() -> torch.nn.Module:
    """RRDBNet x4, 23 blocks of 64 filters. Errors: ImportError without spandrel or torchvision."""
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.manual_seed(0)
    return ESRGAN(scale=SCALE).eval().requires_grad_(False)


def chain(colorize: Colorizer, enlarge: torch.nn.Module) -> Way:
    """Read, DDColor, ESRGAN, write."""

    def way(source: Path, target: Path) -> None:
        gray = np.asarray(Image.open(source).convert("RGB"))
        bgr = colorize(np.ascontiguousarray(gray[..., ::-1]))
        rgb = torch.from_numpy(np.ascontiguousarray(bgr[..., ::-1])).permute(2, 0, 1)[None] / 255
        large = enlarge(rgb)[0].clamp(0, 1).mul(255).round().byte()
        write_picture(target, large.permute(1, 2, 0).numpy(), overwrite=True)

    return way


def peers(checkout: Path | None) -> tuple[dict[str, Way], dict[str, str]]:
    """The chains that can be run here, and why others cannot."""
    found: dict[str, Way] = {}
    missing: dict[str, str] = {}
    for size in SIZES:
        name = f"DDColor-{size} + ESRGAN"
        if checkout is None:
            missing[name] = "no --ddcolor PATH was given"
            continue
        try:
            found[name] = chain(ddcolor(checkout, size), esrgan())
        except ImportError as error:
            missing[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        except RuntimeError as error:
            if "torchvision" not in str(error):
                raise
            missing[name] = f"torchvision does not fit this PyTorch: {error}".splitlines()[0]
    return found, missing


def turn(way: Way, source: Path, target: Path) -> Callable[[Clock], None]:
    """The way from file to file, on the clock."""
    return lambda clock: clock.time("", lambda: way(source, target))


@torch.inference_mode()
def measure(sizes: list[int], runs: int, checkout: Path | None) -> list[Record]:
    """Gray PNG in, coloured PNG of four times the side out; weights are loaded already."""
    chains, missing = peers(checkout)
    ways: dict[str, Way] = {name_of(d): ours(d) for d in dict.fromkeys((best(), torch.float32))}
    records: list[Record] = [
        {"section": "files", "way": name, "skipped": why} for name, why in missing.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "gray.png"), Path(folder, "colour.png")
        for side in sizes:
            Image.open(PHOTO).convert("L").resize((side, side)).save(source)
            small = side <= 128
            chosen: dict[str, Any] = dict(ways)
            if side <= 256:
                chosen |= {FORMULAS: formulas()} | chains
            turns = {name: turn(way, source, target) for name, way in chosen.items()}
            if side > 256:
                turns.pop(name_of(torch.float32) if best() != torch.float32 else "", None)
            for name, clock in in_turns(turns, runs if small else 1, warm=small).items():
                seconds = clock.seconds[""]
                print("files", side, name, spread(seconds), file=sys.stderr, flush=True)
                records.append({"section": "files", "side": side, "way": name, "seconds": seconds})
    return records


def tables(records: list[Record]) -> str:
    """Seconds, and how many times as long as ours; then who is missing."""
    done = [r for r in records if "seconds" in r]
    found = {(r["side"], r["way"]): r["seconds"] for r in done}
    sides = list(dict.fromkeys(r["side"] for r in done))
    rows = []
    for way in dict.fromkeys(r["way"] for r in done):
        cells = [way]
        for side in sides:
            seconds = found.get((side, way))
            ratio = times(seconds, found[side, name_of(best())])
            cells.append(f"{spread(seconds)} = {ratio} times" if seconds else "")
        rows.append(cells)
    lines = [markdown(["file to file", *(f"{s} → {s * SCALE}" for s in sides)], rows)]
    lines += [f"\nSkipped: {r['way']}: {r['skipped']}" for r in records if "skipped" in r]
    return "\n".join(lines)
