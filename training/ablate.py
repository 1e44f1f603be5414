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
from training.config import TrainConfig
from training.config.cli import Parser, parse_options
from training.config.overrides import (
    CONFIG,
    apply_overrides,
    config_parser,
    describe_config,
    load_config,
)
from training.config.stage import Stage
from training.config.upscaling import UpscalingConfig
from training.data.photos import find_photos, select_evenly
from training.engine.checkpoints import RunError
from training.engine.model_card import PICTURE, WEIGHTS
from training.evaluation import upscaling
from training.evaluation.protocol import Colorizer, Protocol, score
from training.evaluation.validation import Validation
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
"""Row -> FID, PSNR, SSIM as printed."""
LOSSES = {
    "content": (0, 0),
    "content + perceptual": (5, 0),
    "content + adversarial": (0, 1),
    "all three": (5, 1),
}
PARTS = {
    "baseline": ("none", "pixel_shuffle"),
    "BCAttn": ("basic", "pixel_shuffle"),
    "PVCAttn": ("pyramid_valve", "pixel_shuffle"),
    "CPM": ("none", "cpm"),
    "PVCAttn + CPM": ("pyramid_valve", "cpm"),
}
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
    """Return the config of every row of a table."""
    rows = {}
    for name in START if table == "start" else PAPER[table]:
        folder = str(Path(config.output, re.sub(r"\W+", "_", name).strip("_")))
        if table == "start":
            fields, siamese, supervision = START[name]
            network = replace(config.network, **fields)
            stages = tuple(replace(s, supervision=supervision) for s in config.stages)
            rows[name] = replace(
                config, output=folder, network=network, siamese=siamese, stages=stages
            )
        elif table == "4":
            perceptual, adversarial = LOSSES[name]
            stages = tuple(
                replace(s, perceptual=float(perceptual), adversarial=float(adversarial))
                for s in config.stages
            )
            rows[name] = replace(config, output=folder, stages=stages)
        else:
            attention, head = PARTS[name]
            network = replace(config.network, attention=attention, head=head)  # type: ignore[arg-type]
            rows[name] = replace(config, output=folder, network=network)
    return rows


def train_row(name: str, config: TrainConfig) -> SCSNet:
    """Return the network of a row, after training it if that has not been done.

    Raises ValueError if it has been trained with other options.
    """
    weights = Path(config.output, WEIGHTS)
    if Path(config.output, CONFIG).exists():
        before = load_config(Path(config.output, CONFIG)).to_dict()
        changed = [k for k, v in config.to_dict().items() if before[k] != v]
        if changed:
            raise ValueError(
                f"row {name!r} in {config.output} was trained with another {changed[0]}: use another --output"
            )
    if not weights.exists():
        print(f"== {name}")
        from training.engine.loop import train  # --help works without the extra

        train(config, resume=True)
    return checkpoint.load(weights, dtype=torch.float32)


def paper_table(table: str, config: TrainConfig, photos: int) -> list[str]:
    """Return the lines of table 4 or 5 of the paper, in Markdown."""
    entries = select_evenly(find_photos(config.validation), photos)
    stage = config.stages[-1]
    protocol = Protocol(size=4 * stage.size, magnification=4.0, modes=("auto", "self"))
    lines = [
        f"Table {table} at small scale: {len(entries)} photos, {stage.size} -> {4 * stage.size} px, "
        f"{sum(s.steps for s in config.stages)} steps of {stage.batch}. Self-reference; in brackets automatic.",
        "",
        "| | PSNR | SSIM | ab error | parameters | paper: FID | paper: PSNR | paper: SSIM |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, variant in make_variants(table, config).items():
        net = train_row(name, variant)
        rows = score(Colorizer(net, protocol), entries, protocol).rows
        own, auto = rows["self"], rows["auto"]
        cells = [
            f"{own[k]:.{d}f} ({auto[k]:.{d}f})"
            for k, d in (("psnr", 2), ("ssim", 3), ("ab_error", 2))
        ]
        fid, psnr, ssim = PAPER[table][name]
        count = sum(p.numel() for p in net.parameters()) / 1e6
        lines.append(f"| {name} | {' | '.join(cells)} | {count:.3f} M | {fid} | {psnr} | {ssim} |")
    for name in ("gray + bicubic", "true colour + bicubic"):  # floor and ceiling
        cells = [f"{rows[name][k]:.{d}f}" for k, d in (("psnr", 2), ("ssim", 3), ("ab_error", 2))]
        lines.append(f"| {name} | {' | '.join(cells)} | | | | |")
    return lines


def start_table(config: TrainConfig, photos: int) -> list[str]:
    """Return the lines of table "start" in Markdown: how much each change makes the network use its reference."""
    validation = Validation(find_photos(config.validation), photos)
    stage, steps = config.stages[-1], sum(s.steps for s in config.stages)
    lines = [
        f"{len(validation.squares)} photos at {stage.size} px, {steps} steps of {stage.batch}, references only. Mean "
        "error of ab with the photo's own reference (elastic) and with another photo's: a network that ignores its "
        "reference has the same twice.",
        "",
        "| | own | another's | gray |",
        "|---|---|---|---|",
    ]
    for name, variant in make_variants("start", config).items():
        net = train_row(name, variant)
        metrics = validation.compute(net, stage, Path(variant.output, PICTURE))
        cells = " | ".join(f"{metrics[f'{kind}_ab']:.2f}" for kind in ("own", "swap", "gray"))
        lines.append(f"| {name} | {cells} |")
    return lines


def ablate(table: str, config: TrainConfig, photos: int) -> str:
    """Train and evaluate every row; return the table as Markdown, which is also written beside the runs."""
    if table == "start":
        lines = start_table(config, photos)
    else:
        lines = paper_table(table, config, photos)
    text = "\n".join(lines) + "\n"
    save_text(Path(config.output, f"table{table}.md"), text)
    return text


def quality_table(config: UpscalingConfig) -> list[str]:
    """Train and evaluate every row of Table 6; return its lines in Markdown and draw the plot beside the runs."""
    entries = {
        Path(source).stem: select_evenly(find_photos([source]), config.photos)
        for source in config.validation
    }
    if len(entries) < len(config.validation):
        raise ValueError(f"expected sets with different names, got {' '.join(config.validation)}")
    from training.engine.upscaling import (
        train_row as train_upscaler,
    )  # --help works without the extra

    networks = {row: train_upscaler(row, config) for row in ROWS}
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
    """Measure the heads; return Table 7 in Markdown."""
    from training.engine.upscaling import choose_device

    device = choose_device()
    heads = upscaling.time_heads(device, config.precision)
    return [
        f"Table 7: heads at the paper's size, {upscaling.FEATURES} -> {upscaling.FRAME} px, batch 1, {config.precision} "
        f"on {device.type}, median of {upscaling.RUNS}.",
        "",
        *upscaling.format_speed(heads),
    ]


def compare_heads(table: str, config: UpscalingConfig) -> str:
    """Return Table 6 or 7 as Markdown, which is also written to the output folder."""
    lines = quality_table(config) if table == "6" else speed_table(config)
    text = "\n".join(lines) + "\n"
    Path(config.output).mkdir(parents=True, exist_ok=True)
    save_text(Path(config.output, f"table{table}.md"), text)
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Options -> table."""
    words = [Parser.tidy(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    parser = Parser(prog="ablate.py", description=__doc__)
    parser.option(parser, "--table", choices=TABLES, default="5", help="of the paper, or start")
    peek = Parser(add_help=False)
    peek.option(peek, "--table", default="5")
    table = peek.parse_known_args(words)[0].table
    if table in UPSCALING:
        with parser.exit_on_errors(RunError):
            heads = parse_options(parser, UpscalingConfig, words)
            if not heads.output or (table == "6" and not (heads.data and heads.validation)):
                parser.error("--output, and for table 6 --data and --validation are needed")
            print(compare_heads(table, heads))
        return
    parser.option(parser, "--photos", type=int, default=50, help="of --validation to evaluate on")
    config = small(table)
    config_parser(parser, words, len(config.stages))
    options = parser.parse(words)
    with parser.exit_on_errors(RunError):
        config = apply_overrides(config, vars(options))
        if not (config.data and config.validation and config.output):
            parser.error("--data, --validation and --output are needed")
        print("\n".join(describe_config(config)))
        print(ablate(options.table, config, options.photos))


if __name__ == "__main__":
    main()
