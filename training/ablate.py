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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

import torch

from scsnet import SCSNet, checkpoint
from scsnet.device import choose_device
from training.config import TrainConfig, overrides
from training.config.cli import Parser, parse_options, replace_underscores
from training.config.stage import Stage
from training.config.upscaling import UpscalingConfig
from training.data.photos import find_photos, select_evenly
from training.engine.checkpoints import RunError
from training.engine.model_card import PICTURE, WEIGHTS
from training.evaluation import upscaling
from training.evaluation.protocol import Colorizer, Protocol, score
from training.evaluation.validation import Validation
from training.models.upscaling_heads import ROWS
from training.text import format_table, save_text


class Row(NamedTuple):
    """What a row of a table changes in the config, and its figures in the paper."""

    network: dict[str, Any]
    stage: dict[str, Any]
    siamese: bool | None = None
    """None: as in the config."""
    paper: tuple[float, ...] = ()
    """FID, PSNR, SSIM as printed."""


def _make_loss_row(perceptual: float, adversarial: float, *paper: float) -> Row:
    return Row({}, {"perceptual": perceptual, "adversarial": adversarial}, paper=paper)


def _make_part_row(attention: str, head: str, *paper: float) -> Row:
    return Row({"attention": attention, "head": head}, {}, paper=paper)


PAPER = {
    "4": {
        "content": _make_loss_row(0.0, 0.0, 16.290, 26.172, 0.898),
        "content + perceptual": _make_loss_row(5.0, 0.0, 15.068, 27.456, 0.918),
        "content + adversarial": _make_loss_row(0.0, 1.0, 11.616, 26.536, 0.906),
        "all three": _make_loss_row(5.0, 1.0, 9.632, 27.694, 0.923),
    },
    "5": {
        "baseline": _make_part_row("none", "pixel_shuffle", 17.541, 25.517, 0.887),
        "BCAttn": _make_part_row("basic", "pixel_shuffle", 16.635, 26.173, 0.896),
        "PVCAttn": _make_part_row("pyramid_valve", "pixel_shuffle", 15.334, 26.619, 0.907),
        "CPM": _make_part_row("none", "cpm", 9.978, 26.796, 0.905),
        "PVCAttn + CPM": _make_part_row("pyramid_valve", "cpm", 9.632, 27.694, 0.923),
    },
}
LITERAL = {"norm": "instance", "residual": False, "cosine_attention": False, "attention_scale": 1.0}
PLAIN = LITERAL | {"norm": "none"}
RESIDUAL = PLAIN | {"residual": True}
COSINE = RESIDUAL | {"cosine_attention": True, "attention_scale": 30.0}
OFF, ON = {"supervision": 0.0}, {"supervision": 10.0}
PAPER_BRANCH = Row(LITERAL, OFF, False)
START = {
    "the paper's colour branch: instance norm, plain chain, plain attention": PAPER_BRANCH,
    "instance norm, residual": Row(LITERAL | {"residual": True}, OFF, False),
    "no norm, plain chain": Row(PLAIN, OFF, False),
    "no norm, residual": Row(RESIDUAL, OFF, False),
    "... + siamese start": Row(RESIDUAL, OFF, True),
    "... + deep supervision": Row(RESIDUAL, ON, True),
    "... + cosine attention, scale 30 (our presets)": Row(COSINE, ON, True),
}
UPSCALING = ("6", "7")
TABLES = (*PAPER, *UPSCALING, "start")


def make_small_config(table: str) -> TrainConfig:
    """Return a config that trains a row in minutes: 32 -> 128 px; for table "start" 32 px, with references only."""
    stage = Stage(steps=300, batch=8, size=32, chroma_weight=0.0)
    if table == "start":
        stage = replace(stage, trains="all_but_texture", reference_fraction=1.0)
    else:
        changes: dict[str, Any] = {"reference_fraction": 0.5, "warmup": 30, "supervision": 0.0}
        stage = replace(stage, magnification=(4.0, 4.0), **changes)
    return TrainConfig(stages=(stage,), ema=0.99, save_every=100, validate_every=10**9, trackers=())


def make_variants(rows: Mapping[str, Row], config: TrainConfig) -> dict[str, TrainConfig]:
    """Return the config of every row."""
    return {
        name: replace(
            config,
            output=str(Path(config.output, re.sub(r"\W+", "_", name).strip("_"))),
            network=replace(config.network, **row.network),
            siamese=config.siamese if row.siamese is None else row.siamese,
            stages=tuple(replace(stage, **row.stage) for stage in config.stages),
        )
        for name, row in rows.items()
    }


def train_row(name: str, config: TrainConfig) -> SCSNet:
    """Return the network of a row, trained first if that has not been done.

    Raises ValueError if it was trained with other options.
    """
    overrides.check_same_options(name, Path(config.output), config.to_dict())
    weights = Path(config.output, WEIGHTS)
    if not weights.exists():
        print(f"== {name}")
        from training.engine.loop import train  # --help works without the extra

        train(config, resume=True)
    return checkpoint.load(weights, dtype=torch.float32)


def make_paper_table(table: str, config: TrainConfig, photos: int) -> list[str]:
    """Train and evaluate the rows of Table 4 or 5; return its lines in Markdown."""
    entries = select_evenly(find_photos(config.validation), photos)
    stage = config.stages[-1]
    protocol = Protocol(size=4 * stage.size, magnification=4.0, modes=("auto", "self"))
    digits = {"psnr": 2, "ssim": 3, "ab_error": 2}
    cells: list[list[object]] = []
    for name, variant in make_variants(PAPER[table], config).items():
        net = train_row(name, variant)
        rows = score(Colorizer(net, protocol), entries, protocol).rows
        own, auto = rows["self"], rows["auto"]
        figures = [f"{own[key]:.{d}f} ({auto[key]:.{d}f})" for key, d in digits.items()]
        count = f"{upscaling.count_parameters(net) / 1e6:.3f} M"
        cells.append([name, *figures, count, *PAPER[table][name].paper])
    for name in ("gray + bicubic", "true colour + bicubic"):  # floor and ceiling
        cells.append([name, *(f"{rows[name][key]:.{d}f}" for key, d in digits.items()), *[""] * 4])
    paper = [f"paper: {name}" for name in ("FID", "PSNR", "SSIM")]
    return [
        f"Table {table} at small scale: {len(entries)} photos, {stage.size} -> {4 * stage.size} px, "
        f"{sum(s.steps for s in config.stages)} steps of {stage.batch}. Self-reference; in brackets automatic.",
        "",
        *format_table(["", "PSNR", "SSIM", "ab error", "parameters", *paper], cells),
    ]


def make_start_table(config: TrainConfig, photos: int) -> list[str]:
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
    for name, variant in make_variants(START, config).items():
        net = train_row(name, variant)
        metrics = validation.compute(net, stage, Path(variant.output, PICTURE))
        rows.append([name, *(f"{metrics[f'{kind}_ab']:.2f}" for kind in ("own", "swap", "gray"))])
    return lines + format_table(["", "own", "another's", "gray"], rows)


def make_quality_table(config: UpscalingConfig) -> list[str]:
    """Train and evaluate the rows of Table 6; return its lines in Markdown, and draw the plot beside the rows."""
    from training.engine.upscaling import train_row  # --help works without the extra

    found = {Path(source).stem: find_photos([source]) for source in config.validation}
    entries = {name: select_evenly(photos, config.photos) for name, photos in found.items()}
    if len(entries) < len(config.validation):
        raise ValueError(f"expected sets with different names, got {' '.join(config.validation)}")
    networks = {row: train_row(row, config) for row in ROWS}
    magnifications = upscaling.MAGNIFICATIONS
    sets = {n: upscaling.score_photos(networks, p, magnifications) for n, p in entries.items()}
    upscaling.plot_quality(sets, config.magnification, Path(config.output, "table6.png"))
    counts = ", ".join(f"{len(photos)} of {name}" for name, photos in entries.items())
    return [
        f"Table 6, RDN of size {config.rdn!r}: {config.steps} steps of {config.batch} patches of {config.patch} px, "
        f"{config.precision}. PSNR / SSIM of luma; photos: {counts}.",
        "",
        *upscaling.format_quality(sets, networks),
    ]


def make_speed_table(config: UpscalingConfig) -> list[str]:
    """Measure the heads; return the lines of Table 7 in Markdown."""
    device = choose_device()
    heads = upscaling.time_heads(device, config.precision)
    return [
        f"Table 7: heads at the paper's size, {upscaling.FEATURES} -> {upscaling.FRAME} px, batch 1, {config.precision} "
        f"on {device.type}, median of {upscaling.RUNS}.",
        "",
        *upscaling.format_speed(heads),
    ]


def write_table(table: str, output: str, lines: Sequence[str]) -> str:
    """Write a table into a folder, and return it as text."""
    text = "\n".join(lines) + "\n"
    Path(output).mkdir(parents=True, exist_ok=True)
    save_text(Path(output, f"table{table}.md"), text)
    return text


def ablate(table: str, config: TrainConfig, photos: int) -> str:
    """Return Table 4, 5 or "start" as Markdown, after training the rows; it is also written to the output folder."""
    start = table == "start"
    lines = make_start_table(config, photos) if start else make_paper_table(table, config, photos)
    return write_table(table, config.output, lines)


def compare_heads(table: str, config: UpscalingConfig) -> str:
    """Return Table 6 or 7 as Markdown; it is also written to the output folder."""
    lines = make_quality_table(config) if table == "6" else make_speed_table(config)
    return write_table(table, config.output, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and print the table."""
    words = replace_underscores(arguments)
    # The table decides which options there are, so it is parsed first.
    first = Parser(add_help=False)
    text = "of the paper, or start (default: 5)"
    first.add_argument("--table", choices=TABLES, default="5", help=text)
    table = first.parse_known_args(words)[0].table
    parser = Parser(prog="ablate.py", description=__doc__, parents=[first])
    with parser.exit_on_errors(RunError):
        if table in UPSCALING:
            heads = parse_options(parser, UpscalingConfig, words)
            if not heads.output or (table == "6" and not (heads.data and heads.validation)):
                parser.error("--output, and for table 6 --data and --validation are needed")
            print(compare_heads(table, heads))
            return
        text = "number of photos of --validation to evaluate on (default: 50)"
        parser.add_argument("--photos", type=int, default=50, help=text)
        overrides.add_config_options(parser, words)
        options = parser.parse(words)
        config = overrides.apply_overrides(make_small_config(table), vars(options))
        if not (config.data and config.validation and config.output):
            parser.error("--data, --validation and --output are needed")
        print("\n".join(overrides.describe_config(config)))
        print(ablate(table, config, options.photos))


if __name__ == "__main__":
    main()
