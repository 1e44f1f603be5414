"""A teacher for automatic colours: `python training/teacher.py --data PHOTOS --features FILE --output teacher.safetensors`.

A small head learns to tell the coarse colours of a photo (14 x 14 cells) from what MobileNet, trained on ImageNet, sees
in the photo when it is gray. A stage with `teaching` then asks phi for these colours too. A photo's own colours are one
of many that are plausible; the teacher knows their mean, for any crop, so that phi learns with less noise (Hinton et
al. 2015). Neither the head nor MobileNet is part of the result.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from scsnet import tensorfile
from scsnet.color import gray, rgb_to_lab
from training.backbones import MobileNet
from training.data import BICUBIC, planes, random_square
from training.files import names_weights
from training.options import Parser, filled
from training.photos import BadPhotoError, Entry, find, read
from training.stage import above_0_at_most_1, at_least
from training.teaching import SIZE, Head, cells, difference


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the teacher learns from, and how long."""

    data: tuple[str, ...] = ()
    """Photos: folders, lists (.txt), shards (.tar)."""
    features: str = ""
    """MobileNet v1 features (.npz)."""
    output: str = ""
    """A .safetensors file."""
    views: int = 3
    """Random squares of each photo; 200 KB of memory each."""
    epochs: int = 8
    """How often every view is seen."""
    batch: int = 32
    """Views per step."""
    learning_rate: float = 1e-3
    """The highest one; it falls to 0."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        for name in ("views", "epochs", "batch"):
            at_least(self, name, 1)
        above_0_at_most_1(self, "learning_rate")
        if not self.data:
            raise ValueError("--data is missing: folders, lists or shards of photos")
        if not self.features:
            raise ValueError("--features is missing: the file with MobileNet's features")
        names_weights(self.output)


def _views(entries: Sequence[Entry], count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    for entry in tqdm(entries, desc="looking", unit="photo", disable=None):
        try:
            photo = read(entry)
        except BadPhotoError as error:
            tqdm.write(f"left out: {error}")
            continue
        for _ in range(count):
            square = random_square(photo, rng, 1)
            yield np.asarray(square.resize((SIZE, SIZE), BICUBIC))


@torch.no_grad()
def examples(options: Options, device: torch.device) -> tuple[Tensor, Tensor]:
    """What MobileNet sees in gray views (N, 512, 14, 14), bfloat16, and their ab (N, 2, 14, 14)."""
    mobilenet = MobileNet(options.features).to(device)
    seen: list[Tensor] = []
    wanted: list[Tensor] = []
    views = _views(find(options.data), options.views, np.random.default_rng(options.seed))
    while some := list(islice(views, 32)):
        rgb = planes(some).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            seen.append(mobilenet(gray(rgb)).to("cpu", torch.bfloat16))
        wanted.append(cells(rgb_to_lab(rgb)[:, 1:]).cpu())
    if not seen:
        raise ValueError("there are no photos to learn from")
    return torch.cat(seen), torch.cat(wanted)


def learn(seen: Tensor, wanted: Tensor, options: Options, device: torch.device) -> Head:
    """A head that has learned from all examples."""
    torch.manual_seed(options.seed)
    head = Head().to(device)
    starts = [*range(0, len(seen), options.batch)]
    total = options.epochs * len(starts)
    optimizer = torch.optim.AdamW(head.parameters(), options.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, total + 1)
    with tqdm(total=total, desc="learning", unit="step", disable=None) as bar:
        for _ in range(options.epochs):
            order, recent = torch.randperm(len(seen)), 0.0
            for start in starts:
                picked = order[start : start + options.batch]
                features, ab = seen[picked].to(device), wanted[picked].to(device)
                if torch.rand(()) < 0.5:  # nearly what MobileNet would see in the mirrored view
                    features, ab = features.flip(3), ab.flip(3)
                with torch.autocast(device.type, torch.bfloat16):
                    made = head(features)
                loss = difference(made.float(), ab)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                recent += loss.item() / len(starts)
                bar.update()
            bar.set_postfix(loss=f"{recent:.4f}")
    return head.eval()


def main(arguments: Sequence[str] | None = None) -> None:
    """Options -> one file."""
    parser = Parser(prog="teacher.py", description=__doc__)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        options = filled(parser, Options, arguments)
        head = learn(*examples(options, device), options, device)
        tensorfile.write(Path(options.output), head.cpu().state_dict(), {})
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(options.output)


if __name__ == "__main__":
    main()
