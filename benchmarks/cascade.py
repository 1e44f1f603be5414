"""From file to file, against DDColor followed by ESRGAN x4.

DDColor comes from a checkout of github.com/piddnad/DDColor (which imports timm and opencv), through its own pipeline at
512 x 512; RRDBNet from spandrel (which imports torchvision). Random weights.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks import straightforward
from benchmarks.measure import ROOT, Clock, Record, in_turns, markdown, spread, times
from benchmarks.pictures import FORMULAS, SCALE, best, name_of, network
from scsnet import encode_picture, render
from scsnet.color import denormalize_lab, lab_to_rgb
from scsnet.pictures import read_picture, write_picture
from scsnet.pipeline import extract_luminance

PHOTO = ROOT / "samples" / "Colorado1941.png"
DDCOLOR = {"tiny": "convnext-t", "large": "convnext-l"}
Colorizer = Callable[[Tensor], Tensor]
"""sRGB (1, 3, H, W) in 0..1 -> the coloured and enlarged picture (1, 3, 4 H, 4 W) in 0..1."""


def ours(dtype: torch.dtype) -> Colorizer:
    """Return this network in `dtype`."""
    net = network(dtype)
    return lambda rgb: render(
        net, encode_picture(net, rgb), (SCALE * rgb.shape[2], SCALE * rgb.shape[3])
    )


def formulas() -> Colorizer:
    """Return the paper's formulas, written straightforwardly, in float32."""
    net = network(torch.float32)

    def colorize(rgb: Tensor) -> Tensor:
        gray, size = extract_luminance(net, rgb), (SCALE * rgb.shape[2], SCALE * rgb.shape[3])
        planes = straightforward.decode(net, straightforward.encode(net, gray), gray, size)
        return lab_to_rgb(denormalize_lab(planes, net.config), clip=True)

    return colorize


def ddcolor_esrgan(checkout: Path, encoder: str) -> Colorizer:
    """Return DDColor, then RRDBNet x4 of 23 blocks. Raises ImportError for what they lack."""
    if str(checkout) not in sys.path:
        sys.path.append(str(checkout))
    from ddcolor import ColorizationPipeline, DDColor
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.manual_seed(0)
    net = DDColor(
        encoder_name=encoder,
        decoder_name="MultiScaleColorDecoder",
        input_size=[512, 512],
        num_output_channels=2,
        last_norm="Spectral",
        do_normalize=False,
        num_queries=100,
        num_scales=3,
        dec_layers=9,
    )
    pipeline = ColorizationPipeline(net, input_size=512, device=torch.device("cpu"))
    enlarge = ESRGAN(scale=SCALE).eval().requires_grad_(False)

    def colorize(rgb: Tensor) -> Tensor:
        bgr = rgb[0].flip(0).permute(1, 2, 0).mul(255).round().byte().contiguous().numpy()
        colored = torch.from_numpy(np.ascontiguousarray(pipeline.process(bgr)[..., ::-1]))
        return enlarge(colored.permute(2, 0, 1)[None] / 255).clamp(0, 1)

    return colorize


def on_files(colorize: Colorizer, source: Path, target: Path) -> Callable[[Clock], None]:
    """Return a timed run: read `source`, colorize, write `target`."""

    def run() -> None:
        result = colorize(torch.from_numpy(read_picture(source).rgb).permute(2, 0, 1)[None] / 255)
        planes = result[0].mul(255).round().byte()
        write_picture(target, planes.permute(1, 2, 0).numpy(), overwrite=True)

    return lambda clock: clock.time("", run)


@torch.inference_mode()
def measure(sizes: list[int], runs: int, checkout: Path | None) -> list[Record]:
    """Measure a gray PNG to a coloured PNG of four times the side, with weights loaded."""
    networks = {name_of(d): ours(d) for d in dict.fromkeys((best(), torch.float32))}
    networks[FORMULAS] = formulas()
    if checkout is not None:
        for size, encoder in DDCOLOR.items():
            networks[f"DDColor-{size} + ESRGAN"] = ddcolor_esrgan(checkout, encoder)
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "gray.png"), Path(folder, "colour.png")
        for side in sizes:
            Image.open(PHOTO).convert("L").resize((side, side)).save(source)
            ways = {n: on_files(c, source, target) for n, c in networks.items()}
            if side > 256:  # the others take minutes
                ways = {name_of(best()): ways[name_of(best())]}
            small = side <= 128
            for name, clock in in_turns(ways, runs if small else 1, warm=small).items():
                seconds = clock.seconds[""]
                records.append({"section": "files", "side": side, "way": name, "seconds": seconds})
    return records


def tables(records: list[Record]) -> str:
    """Format seconds, and the ratio to ours."""
    seconds = {(r["side"], r["way"]): r["seconds"] for r in records}
    sides = list(dict.fromkeys(r["side"] for r in records))
    rows = []
    for way in dict.fromkeys(r["way"] for r in records):
        cells = [way]
        for side in sides:
            value = seconds.get((side, way))
            ratio = times(value, seconds[side, name_of(best())])
            cells.append(f"{spread(value)} = {ratio} times" if value else "")
        rows.append(cells)
    return markdown(["file to file", *(f"{s} → {s * SCALE}" for s in sides)], rows)
