"""Time of a training step, against a plain float32 loop over the same batches.

    python benchmarks/training_speed.py --data PHOTOS [--rounds 8]

The plain loop is what one would first write: the formulas of `straightforward`, float32, PyTorch's default
layout, Adam as it comes. "Our network, float32" is the same loop around our own network code. All make their
batches from the same photos, decode the same windows and have the same losses, moving average and clipping.
Each runs in a process of its own; they take turns, step by step.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

sys.path.append(str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.straightforward import decode, pvcattn
from scsnet.attention import PVCAttn
from scsnet.color import denormalize_lab, normalize_lab, rgb_to_lab
from training.config import TrainConfig
from training.config.schedule import Schedule, StepInfo
from training.config.stage import Stage
from training.data.dataset import Batch, TrainingPairs
from training.data.photos import find_photos
from training.data.references import warp
from training.engine.loop import make_accelerator
from training.engine.malloc import keep_freed_memory
from training.engine.step import Trainer
from training.losses import CONTENT, content_loss
from training.models.generator import TrainingModel, build_network

KINDS = {"plain": "plain loop", "float32": "our network, float32", "ours": "the trainer"}
PHOTOS = 16  # decoded before the first step, kept in memory by both
STAGES = {
    "colour: 48 px, batch 16, x1": Stage(trains="all_but_texture"),
    "everything: 64 px, batch 8, x1 to x4, windows of 96 px": Stage(
        batch=8, size=64, magnification=(1.0, 4.0), window=96, supervision=0.0
    ),
}


class Plain:
    """The plain loop, around the formulas or (`ours`) around our network code."""

    def __init__(self, config: TrainConfig, ours: bool) -> None:
        torch.manual_seed(config.seed)
        self.config, self.ours = config, ours
        self.net = build_network(config)
        self.model = TrainingModel(self.net, config)
        self.heads = self.model.supervision
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, betas=config.betas)
        self.averaged = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(config.ema))

    def features(self, batch: Batch, place: StepInfo) -> tuple[Tensor, Tensor, Tensor]:
        """cat(F_tex, F_color), the normalised L, the loss of the deep supervision."""
        net, branch = self.net, self.net.color_branch
        luminance = normalize_lab(rgb_to_lab(batch.input)[:, :1], net.config)
        lab = normalize_lab(rgb_to_lab(batch.low), net.config)
        initial = net.initial(luminance)
        source = aggregated = branch.source_encoder(initial)
        deep, heads = torch.zeros(()), []
        if not place.automatic:
            reference = warp(lab, batch.distortion)
            encoded = branch.reference_encoder(branch.reference_initial(reference))
            aggregated = pvcattn(cast(PVCAttn, branch.cross_attention), source, [encoded])
            heads.append(("reference", encoded, reference))
        extracted = branch.extractor.convolve(aggregated)
        attended = extracted + pvcattn(branch.extractor.attention, extracted, [extracted])
        heads += [
            ("aggregated", aggregated, lab),
            ("extracted", extracted, lab),
            ("attended", attended, lab),
        ]
        if place.supervision:
            deep = torch.stack([self.heads.loss(n, x, t[:, 1:]) for n, x, t in heads]).sum()
        color = branch.decoder(attended)
        texture = net.texture_encoder(initial) if place.mode.texture else initial
        return torch.cat([texture, color], dim=1), luminance, deep

    def advance(self, batch: Batch, place: StepInfo) -> None:
        """One step of the optimizer."""
        for group in self.optimizer.param_groups:
            group["lr"] = place.learning_rate
        self.optimizer.zero_grad()
        if self.ours:
            planes, deep, _ = self.model(batch, place.mode)
        else:
            features, luminance, deep = self.features(batch, place)
            planes = decode(self.net, features, luminance, batch.size, batch.window)
        lab = denormalize_lab(planes, self.net.config)
        weight = place.stage.chroma_weight if place.automatic else 0.0
        content = content_loss(lab, rgb_to_lab(batch.high), weight)
        (CONTENT * content + place.supervision * deep).backward()
        nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        self.optimizer.step()
        self.averaged.update_parameters(self.net)


def worker(kind: str, stage: str, data: list[str]) -> None:
    """For each number on stdin: take the step of this number, say how long it took."""
    config = TrainConfig(stages=(replace(STAGES[stage], steps=10_000),), trackers=())
    entries = find_photos(data)[:PHOTOS]
    schedule = Schedule(config, len(entries))
    pairs = TrainingPairs(entries, schedule)
    for index in range(len(entries)):
        pairs.photos[index]
    if kind == "ours":
        keep_freed_memory()
        trainer = Trainer(config, schedule, make_accelerator(config))
    else:
        plain = Plain(replace(config, precision="float32"), ours=kind == "float32")
    print("ready", flush=True)
    for line in sys.stdin:
        step = int(line)
        began = time.perf_counter()
        if kind == "ours":
            trainer.step = step
            trainer.advance(iter([pairs[step, 0]]))
        else:
            plain.advance(pairs[step, 0], schedule.at(step))
        print(time.perf_counter() - began, flush=True)


def measured(stage: str, data: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, three steps a round: an automatic one and two with references."""
    command = [sys.executable, str(Path(__file__).resolve()), "--data", *data, "--stage", stage]
    processes = {
        kind: subprocess.Popen(
            [*command, "--worker", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for kind in KINDS
    }

    def say(process: subprocess.Popen[str], word: str) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(word)
        process.stdin.flush()
        return process.stdout.readline()

    seconds: dict[str, list[float]] = {kind: [] for kind in processes}
    for process in processes.values():
        if say(process, "") != "ready\n":
            raise RuntimeError(f"a worker ended before its first step: {stage}")
    for step in range(3 * (rounds + 1)):
        for kind, process in processes.items():
            took = float(say(process, f"{step}\n"))
            if step >= 3:  # the first round warms up
                seconds[kind].append(took)
    for process in processes.values():
        process.communicate()
    return seconds


def main() -> None:
    """Options -> a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", nargs="+", required=True, help="folder of photos")
    parser.add_argument("--rounds", type=int, default=8, help="of three steps each, per stage")
    parser.add_argument("--stage", choices=tuple(STAGES), help="this one only")
    parser.add_argument("--worker", choices=tuple(KINDS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.stage, options.data)
        return
    print(f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    for name in [options.stage] if options.stage else STAGES:
        seconds = measured(name, options.data, options.rounds)
        ours = statistics.median(seconds["ours"])
        print(
            f"\n{name}\n\n| | pictures/s | seconds a step | the trainer is faster |\n|---|---|---|---|"
        )
        for kind, title in KINDS.items():
            median = statistics.median(seconds[kind])
            spread = f"{median:.2f} ({min(seconds[kind]):.2f}-{max(seconds[kind]):.2f})"
            speed = f"{STAGES[name].batch / median:.1f}"
            print(f"| {title} | {speed} | {spread} | {median / ours:.1f} times |", flush=True)


if __name__ == "__main__":
    main()
