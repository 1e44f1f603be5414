"""Evaluate weights on photos: `python training/evaluate.py --weights W --data PHOTOS [--output FOLDER]`.

`--results NAME=FOLDER ...` adds the results of other systems to the tables; `--modes` without names evaluates these alone.
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

from scsnet import SCSNet, checkpoint
from scsnet.device import DTYPES, choose_device
from training.config.cli import Parser, parse_options
from training.config.stage import check_ranges
from training.data.photos import find_photos, select_evenly
from training.evaluation import protocol
from training.evaluation.fid_lpips import Extras
from training.evaluation.protocol import Colorizer, Protocol, ResultFolder
from training.evaluation.report import PLAIN, Page, format_json, format_markdown
from training.text import save_text


@dataclass(frozen=True, kw_only=True)
class Options(Protocol):
    """Options of the evaluation."""

    weights: str = "bundled"
    """A file, "bundled", or "hf:owner/repo"."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights and features."""
    data: tuple[str, ...]
    """Photos: folders, lists (.txt), shards (.tar)."""
    results: tuple[str, ...] = ()
    """Other systems, each NAME=FOLDER: pictures of the size of the truth, named like the photos."""
    output: str = ""
    """Folder for figures.json, figures.md, index.html and pictures. Empty: print only."""
    limit: int = 0
    """Number of photos that are used, spread evenly over all. 0: all."""
    pictures: int = 24
    """Number of photos on the page of pictures."""
    inception: str = ""
    """Weights for FID and KID: weights-inception-2015-12-05-6726825d.pth of torch-fidelity, a local file."""
    lpips: bool = False
    """Compute LPIPS; needs torchvision, and downloads AlexNet."""
    device: str = "auto"
    """Device of the network: auto, cuda, mps or cpu."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, "limit pictures", 0)
        for result in self.results:
            name, _, folder = result.partition("=")
            if not name or not folder or name in (*protocol.MODES, *PLAIN):
                raise ValueError(f"expected results as NAME=FOLDER with a new name, got {result!r}")


def evaluate(net: SCSNet, options: Options, label: str) -> tuple[protocol.Score, str]:
    """Compute all metrics, and write the reports if there is an output folder; return the score and the report as text."""
    entries = select_evenly(find_photos(options.data), options.limit)
    page = Page(Path(options.output, "pictures"), options.pictures if options.output else 0)
    extras = Extras(options.inception, options.lpips)
    pairs = (result.partition("=")[::2] for result in options.results)
    others = {name: ResultFolder(folder, entries) for name, folder in pairs}

    def keep(name: str, pictures: dict[str, np.ndarray]) -> None:
        page.add(name, pictures)
        extras.add(pictures)

    readers = {name: other.read for name, other in others.items()}
    result = protocol.score(Colorizer(net, options), entries, options, keep, readers)
    for name, other in others.items():
        result.skipped += [f"{name}: {problem}" for problem in sorted(other.problems)]
    for name, figures in extras.rows().items():
        result.rows[name] |= figures
    kind = next(net.parameters()).device.type
    names = {"cpu": f"CPU, {torch.get_num_threads()} threads", "mps": "Apple GPU"}
    device = names.get(kind) or torch.cuda.get_device_name()
    facts = {"weights": label, "parameters": protocol.count_parameters(net), "device": device}
    text = format_markdown(result, options, facts, extras.missing)
    if options.output:
        folder = Path(options.output)
        folder.mkdir(parents=True, exist_ok=True)
        save_text(folder / "figures.json", format_json(result, options, facts, extras.missing))
        save_text(folder / "figures.md", text)
        page.close(folder / "index.html", label, text)
    return result, text


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments, evaluate and print the report."""
    parser = Parser(prog="evaluate.py", description=__doc__)
    with parser.exit_on_errors():
        options = parse_options(parser, Options, arguments)
        device, dtype = choose_device(options.device), DTYPES[options.precision]
        net = checkpoint.load(options.weights, device=device, dtype=dtype)
        print(evaluate(net, options, options.weights)[1])


if __name__ == "__main__":
    main()
