"""Ablation studies: `python training/ablate.py --table 5 --data P --validation V --output A`.

Tables 4 (losses) and 5 (attention, head) of the paper, at a small scale and evaluated with self-reference as in the
paper; table "start": from the paper's network to the one of the presets, change by change. Deep supervision and chroma
weights are not part of the paper and are switched off in tables 4 and 5.

Table 6: RDN with CPM, with the heads of Meta-SR and LIIF, and with sub-pixel heads for x2, x3 and x4, and a plot over the
magnification. Table 7: parameters and speed of these heads, untrained. Both have options of their own: --table 6 --help.

All rows are trained for the same steps from the same seed; those of tables 4, 5 and "start" by the options of train.py.
Finished rows are kept; changed options need another --output.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

import torch

from scsnet import SCSNet, checkpoint
from scsnet.device import choose_device
from training.config import TrainConfig
from training.config.cli import Parser, parse_options
from training.config.overrides import (
    apply_overrides,
    check_same_options,
    config_parser,
    describe_config,
)
from training.config.stage import Stage
from training.config.upscaling import UpscalingConfig
from training.data.photos import find_photos, select_evenly
from training.engine.checkpoints import RunError
from training.engine.model_card import PICTURE, WEIGHTS
from training.evaluation import upscaling
from training.evaluation.protocol import Colorizer, Protocol, score
from training.evaluation.validation import Validation
from training.markdown import format_table
from training.models.upscaling_heads import ROWS
from training.paths import save_text

PAPER = {
    "4": {
        "content": (16.290, 26.172, 0.898),
        "content + perceptual": (15.068, 27.456, 0.918),
        "content + adversarial": (11.616, 26.536, 0.906),
        "all three": (9.632, 27.694, 0.923),
    },
    "5": {
        "baseline": (17.541, 25.517, 0.887),
        "BCAttn": (16.635, 26.173, 0.896),
        "PVCAttn": (15.334, 26.619, 0.907),
        "CPM": (9.978, 26.796, 0.905),
        "PVCAttn + CPM": (9.632, 27.694, 0.923),
    },
}
"""Table -> row -> FID, PSNR, SSIM as printed."""
LOSSES = {
    "content": (0.0, 0.0),
    "content + perceptual": (5.0, 0.0),
    "content + adversarial": (0.0, 1.0),
    "all three": (5.0, 1.0),
}
"""Row of Table 4 -> weights of the perceptual and the adversarial loss."""
PARTS = {
    "baseline": ("none", "pixel_shuffle"),
    "BCAttn": ("basic", "pixel_shuffle"),
    "PVCAttn": ("pyramid_valve", "pixel_shuffle"),
    "CPM": ("none", "cpm"),
    "PVCAttn + CPM": ("pyramid_valve", "cpm"),
}
"""Row of Table 5 -> attention and head of the network."""
LITERAL = {"norm": "instance", "residual": False, "cosine_attention": False, "attention_scale": 1.0}
PLAIN = LITERAL | {"norm": "none"}
RESIDUAL = PLAIN | {"residual": True}
COSINE = RESIDUAL | {"cosine_attention": True, "attention_scale": 30.0}
START: dict[str, tuple[dict[str, Any], bool, float]] = {
    "the paper's colour branch: instance norm, plain chain, plain attention": (LITERAL, False, 0.0),
    "instance norm, residual": (LITERAL | {"residual": True}, False, 0.0),
    "no norm, plain chain": (PLAIN, False, 0.0),
    "no norm, residual": (RESIDUAL, False, 0.0),
    "... + siamese start": (RESIDUAL, True, 0.0),
    "... + deep supervision": (RESIDUAL, True, 10.0),
    "... + cosine attention, scale 30 (our presets)": (COSINE, True, 10.0),
}
"""Row -> fields of the network, siamese start, weight of the deep supervision."""
UPSCALING = ("6", "7")
TABLES = (*PAPER, *UPSCALING, "start")


def small(table: str) -> TrainConfig:
    """Return a config that trains a row in minutes: 32 -> 128 px; for table "start" 32 px, with references only."""
    stage = Stage(steps=300, batch=8, size=32, chroma_weight=0.0)
    if table == "start":
        stage = replace(stage, trains="all_but_texture", reference_fraction=1.0)
    else:
        stage = replace(
            stage, magnification=(4.0, 4.0), reference_fraction=0.5, warmup=30, supervision=0.0
        )
    return TrainConfig(stages=(stage,), ema=0.99, save_every=100, validate_every=10**9, trackers=())


def make_variants(table: str, config: TrainConfig) -> dict[str, TrainConfig]:
    """Return the config of every row of table 4, 5 or "start"."""
    rows = {}
    for name in START if table == "start" else PAPER[table]:
        network: dict[str, Any] = {}
        losses: dict[str, Any] = {}
        siamese = config.siamese
        if table == "start":
            network, siamese, losses["supervision"] = START[name]
        elif table == "4":
            losses["perceptual"], losses["adversarial"] = LOSSES[name]
        else:
            network["attention"], network["head"] = PARTS[name]
        rows[name] = replace(
            config,
            output=str(Path(config.output, re.sub(r"\W+", "_", name).strip("_"))),
            network=replace(config.network, **network),
            siamese=siamese,
            stages=tuple(replace(stage, **losses) for stage in config.stages),
        )
    return rows


def train_row(name: str, config: TrainConfig) -> SCSNet:
    """Return the network of a row, trained first if that has not been done.

    Raises ValueError if it was trained with other options.
    """
    check_same_options(name, Path(config.output), config.to_dict())
    weights = Path(config.output, WEIGHTS)
    if not weights.exists():
        print(f"== {name}")
        from training.engine.loop import train  # --help works without the extra

        train(config, resume=True)
    return checkpoint.load(weights, dtype=torch.float32)


def paper_table(table: str, config: TrainConfig, photos: int) -> list[str]:
    """Train and evaluate the rows of table 4 or 5; return its lines in Markdown."""
    entries = select_evenly(find_photos(config.validation), photos)
    stage = config.stages[-1]
    protocol = Protocol(size=4 * stage.size, magnification=4.0, modes=("auto", "self"))
    columns = (("psnr", 2), ("ssim", 3), ("ab_error", 2))
    lines = [
        f"Table {table} at small scale: {len(entries)} photos, {stage.size} -> {4 * stage.size} px, "
        f"{sum(s.steps for s in config.stages)} steps of {stage.batch}. Self-reference; in brackets automatic.",
        "",
    ]
    header = [
        "",
        "PSNR",
        "SSIM",
        "ab error",
        "parameters",
        "paper: FID",
        "paper: PSNR",
        "paper: SSIM",
    ]
    table_rows: list[list[object]] = []
    for name, variant in make_variants(table, config).items():
        net = train_row(name, variant)
        rows = score(Colorizer(net, protocol), entries, protocol).rows
        own, auto = rows["self"], rows["auto"]
        cells = [f"{own[k]:.{d}f} ({auto[k]:.{d}f})" for k, d in columns]
        count = upscaling.count_parameters(net) / 1e6
        table_rows.append([name, *cells, f"{count:.3f} M", *PAPER[table][name]])
    for name in ("gray + bicubic", "true colour + bicubic"):  # floor and ceiling
        table_rows.append([name, *(f"{rows[name][k]:.{d}f}" for k, d in columns), *[""] * 4])
    return lines + format_table(header, table_rows)


def start_table(config: TrainConfig, photos: int) -> list[str]:
    """Train and evaluate the rows of table "start"; return its lines in Markdown.

    It shows how much each change makes the network use its reference.
    """
    validation = Validation(find_photos(config.validation), photos)
    stage, steps = config.stages[-1], sum(s.steps for s in config.stages)
    lines = [
        f"{len(validation.squares)} photos at {stage.size} px, {steps} steps of {stage.batch}, references only. Mean "
        "error of ab with the photo's own reference (elastic) and with another photo's: a network that ignores its "
        "reference has the same twice.",
        "",
    ]
    rows = []
    for name, variant in make_variants("start", config).items():
        net = train_row(name, variant)
        metrics = validation.compute(net, stage, Path(variant.output, PICTURE))
        rows.append([name, *(f"{metrics[f'{kind}_ab']:.2f}" for kind in ("own", "swap", "gray"))])
    return lines + format_table(["", "own", "another's", "gray"], rows)


def quality_table(config: UpscalingConfig) -> list[str]:
    """Train and evaluate the rows of Table 6; return its lines in Markdown, and draw the plot beside the rows."""
    from training.engine.upscaling import train_row  # --help works without the extra

    entries = {
        Path(source).stem: select_evenly(find_photos([source]), config.photos)
        for source in config.validation
    }
    if len(entries) < len(config.validation):
        raise ValueError(f"expected sets with different names, got {' '.join(config.validation)}")
    networks = {row: train_row(row, config) for row in ROWS}
    sets = {
        name: upscaling.score_photos(networks, photos, upscaling.MAGNIFICATIONS)
        for name, photos in entries.items()
    }
    upscaling.plot_quality(sets, config.magnification, Path(config.output, "table6.png"))
    counts = ", ".join(f"{len(photos)} of {name}" for name, photos in entries.items())
    return [
        f"Table 6, RDN of size {config.rdn!r}: {config.steps} steps of {config.batch} patches of {config.patch} px, "
        f"{config.precision}. PSNR / SSIM of luma; photos: {counts}.",
        "",
        *upscaling.format_quality(sets, networks),
    ]


def speed_table(config: UpscalingConfig) -> list[str]:
    """Measure the heads; return the lines of Table 7 in Markdown."""
    device = choose_device()
    heads = upscaling.time_heads(device, config.precision)
    return [
        f"Table 7: heads at the paper's size, {upscaling.FEATURES} -> {upscaling.FRAME} px, batch 1, {config.precision} "
        f"on {device.type}, median of {upscaling.RUNS}.",
        "",
        *upscaling.format_speed(heads),
    ]


def _write_table(table: str, output: str, lines: Sequence[str]) -> str:
    text = "\n".join(lines) + "\n"
    Path(output).mkdir(parents=True, exist_ok=True)
    save_text(Path(output, f"table{table}.md"), text)
    return text


def ablate(table: str, config: TrainConfig, photos: int) -> str:
    """Return table 4, 5 or "start" as Markdown, after training the rows; it is also written to the output folder."""
    start = table == "start"
    lines = start_table(config, photos) if start else paper_table(table, config, photos)
    return _write_table(table, config.output, lines)


def compare_heads(table: str, config: UpscalingConfig) -> str:
    """Return Table 6 or 7 as Markdown; it is also written to the output folder."""
    lines = quality_table(config) if table == "6" else speed_table(config)
    return _write_table(table, config.output, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and print the table."""
    words = Parser.tidy(arguments)
    parser = Parser(prog="ablate.py", description=__doc__)
    text = "of the paper, or start (default: 5)"
    parser.add_argument("--table", choices=TABLES, default="5", help=text)
    # The table decides which options there are, so it is parsed first.
    first = Parser(add_help=False)
    first.add_argument("--table", default="5")
    table = first.parse_known_args(words)[0].table
    with parser.exit_on_errors(RunError):
        if table in UPSCALING:
            heads = parse_options(parser, UpscalingConfig, words)
            if not heads.output or (table == "6" and not (heads.data and heads.validation)):
                parser.error("--output, and for table 6 --data and --validation are needed")
            print(compare_heads(table, heads))
            return
        text = "number of photos of --validation to evaluate on (default: 50)"
        parser.add_argument("--photos", type=int, default=50, help=text)
        config = small(table)
        config_parser(parser, words, len(config.stages))
        options = parser.parse(words)
        config = apply_overrides(config, vars(options))
        if not (config.data and config.validation and config.output):
            parser.error("--data, --validation and --output are needed")
        print("\n".join(describe_config(config)))
        print(ablate(table, config, options.photos))


if __name__ == "__main__":
    main()
