"""Train the semantic prior: `python training/train_prior.py --data PHOTOS --efficientnet FILE.pth --output prior.safetensors`.

EfficientNet-Lite2, trained on ImageNet, and a head on it learn to predict the distribution of colours at each position of a
gray photo. With --init instead of --efficientnet the prior of SCSNet weights learns further. `train.py --prior` adds the
result to SCSNet.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from math import ceil, cos, pi
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from scsnet import checkpoint, prior
from scsnet.atomic_write import open_atomic
from scsnet.checkpoint import safetensors_file
from scsnet.color import rgb_to_lab
from scsnet.device import choose_device, cpu_multiplies_bfloat16
from scsnet.prior import SemanticPrior, lightness_to_gray
from training.config.cli import Parser, parse_options
from training.config.prior import Options
from training.data import prior_photos
from training.data.dataset import stack_photos
from training.data.photos import Entry, find_photos, read_photos, read_squares, select_evenly
from training.data.prior_photos import PriorBatch
from training.models.backbones import load_efficientnet

PALETTE_PHOTOS = 1000  # photos whose pixels are counted for the palette
DROPOUT = 0.2
WARM_UP = 0.1  # fraction of a run in which the learning rate rises


def compute_explained(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Compute the share of the squared ab that a prediction explains, in per cent: 0 for gray, 100 for the target.

    prediction, target: (B, 2, h, w). Returns it for "ab", "a" and "b".
    """
    error = (prediction - target).square().sum((0, 2, 3))
    power = target.square().sum((0, 2, 3))
    a, b = (100 * (1 - error / power)).tolist()
    return {"ab": 100 * (1 - error.sum() / power.sum()).item(), "a": a, "b": b}


def read_validation_set(source: str, options: Options) -> tuple[Tensor, Tensor]:
    """Read gray photos (N, 1, size, size) and the mean ab of their cells (N, 2, h, w). Raises ValueError if none can be read."""
    skipped: list[str] = []
    entries = select_evenly(find_photos([source]), options.validation_count)
    squares = [np.asarray(square) for _, square in read_squares(entries, options.size, skipped)]
    if not squares:
        raise ValueError(f"none of the photos in {source} can be read: {skipped[-1]}")
    lab = rgb_to_lab(stack_photos(squares))
    return lightness_to_gray(lab[:, :1]), F.avg_pool2d(lab[:, 1:], prior_photos.STRIDE)


def start_prior(efficientnet: str) -> SemanticPrior:
    """Return a prior whose trunk has ImageNet weights. Raises the errors of `load_efficientnet`."""
    net = SemanticPrior(prior.EFFICIENTNET_LITE2)
    try:
        net.features.load_state_dict(load_efficientnet(efficientnet))
    except RuntimeError as error:
        raise ValueError(f"{efficientnet} is no EfficientNet-Lite2: {error}") from error
    return net


def load_prior(weights: str) -> SemanticPrior:
    """Return the prior of SCSNet weights. Raises the errors of `checkpoint.load`, and ValueError for weights without one."""
    guidance = checkpoint.load(weights, dtype=torch.float32).color_branch.guidance
    if guidance is None:
        raise ValueError(f"{weights} has no prior")
    return guidance.prior


def compute_rate_factor(progress: float) -> float:
    """Return the factor of the learning rate at a fraction of the run, 0..1: one cycle, 0.04..1..0 (Smith and Topin 2019)."""
    if progress < WARM_UP:
        return 0.52 - 0.48 * cos(pi * progress / WARM_UP)
    return 0.5 + 0.5 * cos(pi * (progress - WARM_UP) / (1 - WARM_UP))


class Trainer:
    """Network, optimizer and position of a run. `load` continues a run, `learn` runs one step.

    The head and EfficientNet-Lite2, but for its depthwise convolutions, are trained. Raises ValueError for weights of another
    network.
    """

    def __init__(self, options: Options, entries: Sequence[Entry], device: torch.device) -> None:
        self.options, self.device = options, device
        torch.manual_seed(options.seed)
        self.net = load_prior(options.init) if options.init else start_prior(options.efficientnet)
        if not options.resume and not options.init:
            some = select_evenly(entries, PALETTE_PHOTOS)
            bar = tqdm(some, desc="palette", unit="photo", disable=None)
            # Unreadable ones are named in training.
            photos = read_photos(bar, [], prior_photos.read_small_photo)
            self.net.palette.copy_(prior_photos.count_palette(photo for _, photo in photos))
        self.net.head.dropout = DROPOUT
        self.net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net.requires_grad_(False)
        # Gradients of depthwise weights would take more than half of a step on CPU.
        dense = self.net.features.dense_parameters() if options.features_rate else []
        self.trained = [*dense, *self.net.head.parameters()]
        for parameter in self.trained:
            parameter.requires_grad_(True)
        self.rates = [options.learning_rate * options.features_rate, options.learning_rate]
        groups: list[dict[str, Any]] = [{"params": dense}, {"params": self.net.head.parameters()}]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.02, betas=(0.9, 0.99))
        bf16 = device.type != "cpu" or cpu_multiplies_bfloat16()
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
        self.total = options.steps or ceil(options.epochs * len(entries) / options.batch)
        self.step = 0

    def load(self) -> None:
        """Restore the state of the checkpoint. Raises FileNotFoundError if there is none."""
        path = self.options.checkpoint
        if not path.exists():
            raise FileNotFoundError(f"Checkpoint not found: {path}")
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}
        with open_atomic(self.options.checkpoint) as file:
            torch.save(state | {"step": self.step}, file)

    def learn(self, batch: PriorBatch) -> float:
        """Run one optimizer step on a batch; return its loss."""
        torch.manual_seed(self.options.seed * 1_000_003 + self.step)  # of the dropout
        gray = batch.gray.to(self.device, memory_format=torch.channels_last)
        ab, inside = batch.ab.to(self.device), batch.inside.to(self.device)
        targets = prior_photos.compute_targets(ab, inside, self.net.palette)
        with self.autocast:
            logits, _ = self.net(gray)
        loss = prior_photos.compute_loss(logits, targets)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 5.0)
        factor = compute_rate_factor(self.step / self.total)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        self.step += 1
        return loss.item()

    @torch.no_grad()
    def validate(self, sets: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Compute the share of the cells' ab that the mean predicted colours explain, for every validation set."""
        net = self.net.eval()
        figures: dict[str, float] = {}
        with self.autocast:
            for name, (gray, ab) in sets.items():
                parts = (part.to(self.device) for part in gray.split(self.options.batch))
                colors = torch.cat([net.compute_mean_color(net(part)[0]).cpu() for part in parts])
                figures |= {f"{name}_{k}": v for k, v in compute_explained(colors, ab).items()}
        net.train()
        return figures


def train(options: Options) -> SemanticPrior:
    """Train the prior, from ImageNet weights or from the checkpoint; return it in eval mode.

    Raises ValueError and OSError for photos, weights or a checkpoint that cannot be used.
    """
    entries = find_photos(options.data)
    sets = {
        Path(source).stem: read_validation_set(source, options) for source in options.validation
    }
    trainer = Trainer(options, entries, choose_device(options.device))
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    if options.resume:
        trainer.load()
    else:
        options.log.unlink(missing_ok=True)
    trainer.net.train()
    total, first, began = trainer.total, trainer.step, time.monotonic()
    losses: list[float] = []
    photos, steps = prior_photos.PriorPhotos(entries, options), range(first, total)
    loader = DataLoader(photos, batch_size=None, sampler=steps, num_workers=options.workers)
    bar = tqdm(loader, initial=first, total=total, unit="step", mininterval=1)
    with options.log.open("a", encoding="utf-8") as log:
        for batch in bar:
            for name in batch.skipped:
                bar.write(f"skipped a photo: {name}", file=sys.stderr)
            losses.append(trainer.learn(batch))
            step, ends = trainer.step, trainer.step == total
            if ends or step % options.save_every == 0:
                trainer.save()
            row: dict[str, float] = {}
            if ends or step % options.log_every == 0:
                row["loss"] = sum(losses) / len(losses)
                row["seconds_per_step"] = (time.monotonic() - began) / (step - first)
                losses.clear()
                bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            if sets and (ends or step % options.validate_every == 0):
                row |= (figures := trainer.validate(sets))
                words = ", ".join(f"{name} {value:.1f}" for name, value in figures.items())
                bar.write(f"step {step}: per cent explained: {words}")
            if row:
                print(json.dumps({"step": step} | row), file=log, flush=True)
    return trainer.net.eval()


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments, train and write the weights."""
    parser = Parser(prog="train_prior.py", description=__doc__)
    with parser.exit_on_errors():
        options = parse_options(parser, Options, arguments)
        net = train(options)
        safetensors_file.write(Path(options.output), net.cpu().state_dict(), {})
    print(options.output)


if __name__ == "__main__":
    main()
