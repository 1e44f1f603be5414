"""Figures of weights: `python training/evaluate.py --weights W --data PHOTOS [--output FOLDER]`.

Results of other systems stand beside them with `--results NAME=FOLDER ...`; `--modes` without names measures these alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

import numpy as np
import torch
from tqdm import tqdm

from scsnet import SCSNet, checkpoint
from scsnet.device import choose_device
from training.config.cli import Parser, parse_options
from training.config.stage import check_at_least
from training.data.photos import find_photos, select_evenly
from training.evaluation.fid_lpips import Extras
from training.evaluation.protocol import (
    MODES,
    Colorizer,
    Protocol,
    Score,
    count_parameters,
    score,
)
from training.evaluation.report import PLAIN, Page, format_json, format_markdown
from training.evaluation.results import ResultFolder
from training.paths import save_text

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Options(Protocol):
    """What to evaluate, where the results go."""

    weights: str = "bundled"
    """A file, "bundled", or "hf:owner/repo"."""
    precision: Precision = "float32"
    """Precision of the weights and features, as users choose it."""
    data: tuple[str, ...] = ()
    """Photos: folders, lists (.txt), shards (.tar)."""
    results: tuple[str, ...] = ()
    """Other systems, each NAME=FOLDER: pictures of the size of the truth, named like the photos."""
    output: str = ""
    """Folder for figures.json, figures.md, index.html and pictures. Empty: print only."""
    limit: int = 0
    """Use so many of the photos, evenly spread. 0: all."""
    pictures: int = 24
    """Photos on the page of pictures."""
    inception: str = ""
    """Weights for FID and KID: weights-inception-2015-12-05-6726825d.pth of torch-fidelity, a local file."""
    lpips: bool = False
    """LPIPS too; torchvision is needed and AlexNet fetched."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where the network runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("limit", "pictures"):
            check_at_least(self, name, 0)
        for result in self.results:
            name, _, folder = result.partition("=")
            if not name or not folder or name in (*MODES, *PLAIN):
                raise ValueError(f"expected results as NAME=FOLDER with a new name, got {result!r}")


def evaluate(net: SCSNet, options: Options, label: str) -> tuple[Score, str]:
    """Score, report on the screen and, with `output`, in files; the score and the report."""
    entries = select_evenly(find_photos(options.data), options.limit)
    page = Page(Path(options.output, "pictures"), options.pictures if options.output else 0)
    colorize = Colorizer(net, options)
    extras = Extras(options.inception, options.lpips)

    def keep(name: str, pictures: dict[str, np.ndarray]) -> None:
        page(name, pictures)
        extras.add(pictures)

    others = {
        name: ResultFolder(folder, entries)
        for name, _, folder in (result.partition("=") for result in options.results)
    }
    readers = {name: other.read for name, other in others.items()}
    with tqdm(total=len(entries), unit="photo", disable=None) as bar:
        result = score(colorize, entries, options, keep, bar.update, readers)
    for name, other in others.items():
        result.skipped += [f"{name}: {problem}" for problem in sorted(other.problems)]
    for name, figures in extras.rows().items():
        result.rows[name] |= figures
    device = (
        torch.cuda.get_device_name()
        if options.device.startswith("cuda")
        else f"CPU, {torch.get_num_threads()} threads"
    )
    facts = {"weights": label, "parameters": count_parameters(net), "device": device}
    missing = extras.missing
    text = format_markdown(result, options, facts, missing)
    if options.output:
        folder = Path(options.output)
        folder.mkdir(parents=True, exist_ok=True)
        save_text(folder / "figures.json", format_json(result, options, facts, missing))
        save_text(folder / "figures.md", text)
        page.close(folder / "index.html", label, text)
    return result, text


def main(arguments: Sequence[str] | None = None) -> None:
    """Options -> report."""
    parser = Parser(prog="evaluate.py", description=__doc__)
    with parser.exit_on_errors():
        options = parse_options(parser, Options, arguments)
        if not options.data:
            parser.error("--data is missing: the photos to evaluate on")
        device = choose_device(options.device)
        net = checkpoint.load(
            options.weights, device=device, dtype=getattr(torch, options.precision)
        )
        print(evaluate(net, options, options.weights)[1])


if __name__ == "__main__":
    main()
