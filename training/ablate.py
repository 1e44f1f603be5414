"""The ablations of Tables 4 and 5: `python training/ablate.py --table 5 --data P --validation V --output A`.

Trains every row from the same start for the same steps, then evaluates it with self-reference, as the paper
does. Any option of train.py changes all rows. A row that is done already is not trained again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

try:
    import accelerate  # noqa: F401
    import skimage  # noqa: F401
except ImportError as error:
    sys.exit(f"ablate.py: {error}; pip install -r training/requirements.txt")

import torch

from scsnet import checkpoint
from training.checkpoints import RunError
from training.config import Stage, TrainConfig
from training.files import save_text
from training.loop import WEIGHTS, train
from training.options import Parser
from training.overrides import config_parser, described, overridden
from training.photos import find
from training.score import Colorizer, Protocol, first, score

PAPER = {
    4: {
        "content": (16.290, 26.172, 0.898),
        "content + perceptual": (15.068, 27.456, 0.918),
        "content + adversarial": (11.616, 26.536, 0.906),
        "all three": (9.632, 27.694, 0.923),
    },
    5: {
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


def small() -> TrainConfig:
    """A scale at which a row takes minutes: 32 -> 128, one stage, everything at x4."""
    stage = Stage(
        steps=300, batch=8, size=32, magnification=(4.0, 4.0), automatic_every=2, warmup=30
    )
    return TrainConfig(stages=(stage,), ema=0.99, save_every=100, validate_every=10**9, trackers=())


def variants(table: int, config: TrainConfig) -> dict[str, TrainConfig]:
    """Row of the table -> the config that makes it."""
    rows = {}
    for name in PAPER[table]:
        folder = str(Path(config.output, name.replace(" + ", "_").replace(" ", "_")))
        if table == 4:
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


def ablate(table: int, config: TrainConfig, photos: int) -> str:
    """Train and evaluate every row; the table as Markdown, also written beside the runs."""
    entries = first(find(config.validation), photos)
    stage = config.stages[-1]
    protocol = Protocol(size=4 * stage.size, magnification=4.0, modes=("auto", "self"))
    lines = [
        f"Table {table} at small scale: {len(entries)} photos, {stage.size} -> {4 * stage.size} px, "
        f"{sum(s.steps for s in config.stages)} steps of {stage.batch}. Self-reference; in brackets automatic.",
        "",
        "| | PSNR | SSIM | ab error | parameters | paper: FID | paper: PSNR | paper: SSIM |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, variant in variants(table, config).items():
        weights = Path(variant.output, WEIGHTS)
        if not weights.exists():
            print(f"== {name}")
            train(variant, resume=True)
        net = checkpoint.load(weights, dtype=torch.float32)
        rows = score(Colorizer(net, protocol), entries, protocol).rows
        own, auto = rows["self"], rows["auto"]
        cells = [
            f"{own[k]:.{d}f} ({auto[k]:.{d}f})"
            for k, d in (("psnr", 2), ("ssim", 3), ("ab_error", 2))
        ]
        fid, psnr, ssim = PAPER[table][name]
        count = sum(p.numel() for p in net.parameters()) / 1e6
        lines.append(f"| {name} | {' | '.join(cells)} | {count:.3f} M | {fid} | {psnr} | {ssim} |")
    text = "\n".join(lines) + "\n"
    save_text(Path(config.output, f"table{table}.md"), text)
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Options -> table."""
    words = [Parser.tidy(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    parser = Parser(prog="ablate.py", description=__doc__)
    parser.option(parser, "--table", type=int, choices=tuple(PAPER), default=5, help="of the paper")
    parser.option(parser, "--photos", type=int, default=50, help="of --validation to evaluate on")
    config = small()
    config_parser(parser, words, len(config.stages))
    options = parser.parse(words)
    try:
        config = overridden(config, vars(options))
        if not (config.data and config.validation and config.output):
            parser.error("--data, --validation and --output are needed")
        print("\n".join(described(config)))
        print(ablate(options.table, config, options.photos))
    except (RunError, OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
