"""One function, `train(config)`: data, steps, checkpoints, figures."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from scsnet import Features, SCSNet, SCSNetConfig
from scsnet.color import denormalize_lab, normalize_lab, rgb_to_lab
from scsnet.sizes import fit

from .config import TrainConfig
from .data import Batch, Photos
from .elastic import elastic_copy
from .losses import content_loss
from .supervision import Supervision, colored, siamese_start
from .validate import validate


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine down to `final_fraction`."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    part = (step - config.warmup) / max(1, config.steps - config.warmup)
    low = config.final_fraction
    return config.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * part)))


class Trainer:
    """Everything that a checkpoint holds."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        self.rng = np.random.default_rng(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.net = SCSNet(SCSNetConfig(working_size=config.size))
        self.heads = Supervision(4 * self.net.config.width)
        if config.init:
            state = torch.load(config.init, weights_only=True)
            self.net.load_state_dict(state["ema"])
            self.heads.load_state_dict(state["heads"])
        else:
            siamese_start(self.net)
        self.net.to(memory_format=torch.channels_last)
        if not config.texture:
            self.net.texture_encoder.requires_grad_(False)
        self.averaged = torch.optim.swa_utils.AveragedModel(
            self.net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.ema)
        )
        parameters = [p for m in (self.net, self.heads) for p in m.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(parameters, lr=0.0, betas=config.betas)
        self.step = 0

    def losses(self, batch: Batch, automatic: bool) -> dict[str, Tensor]:
        """Forward pass: the named terms of the loss."""
        net, config = self.net, self.config
        truth = rgb_to_lab(batch.high)
        low = normalize_lab(rgb_to_lab(batch.low), net.config)
        working = int(self.rng.choice(config.working_sizes)) if config.working_sizes else config.size
        small = fit(low, working)
        reference = None if automatic else elastic_copy(small, self.generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            source = net.color_branch.source_encoder(net.initial(small[:, :1]))
            color, kept, deep = colored(net, self.heads, source, reference, small[:, 1:])
            texture = net.initial(low[:, :1])
            if config.texture:
                texture = net.texture_encoder(texture)
            features = Features(low[:, :1], color, source, texture, kept)
            planes = net.decode(features, batch.size, batch.window)
        lab = denormalize_lab(planes, net.config)
        rebalance = config.rebalance if automatic else 0.0
        fade = max(0.0, 1 - self.step / (0.5 * config.steps)) * config.supervision
        return {"content": content_loss(lab, truth, rebalance), "deep": fade * deep}

    def advance(self, photos: Photos) -> dict[str, float]:
        """One step of the optimizer."""
        config = self.config
        low, high = config.magnification
        magnification = low * (high / low) ** self.rng.random()
        batch = photos.sample(self.rng, config.batch, config.size, magnification, config.window)
        automatic = self.step % config.automatic_every == 0
        terms = self.losses(batch, automatic)
        total = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(total):
            raise FloatingPointError(f"loss is not finite at step {self.step}: {terms}")
        self.optimizer.param_groups[0]["lr"] = learning_rate(self.step, config)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        parameters = self.optimizer.param_groups[0]["params"]
        norm = nn.utils.clip_grad_norm_(parameters, config.clip)
        self.optimizer.step()
        self.averaged.update_parameters(self.net)
        self.step += 1
        named = {name: float(term.detach()) for name, term in terms.items()}
        return {("auto_" if automatic else "ref_") + "content": named["content"]} | {
            "deep": named["deep"],
            "norm": float(norm),
        }

    def state(self) -> dict[str, Any]:
        """For `torch.save`."""
        return {
            "net": self.net.state_dict(),
            "ema": self.averaged.module.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": int(self.averaged.n_averaged),
            "step": self.step,
            "config": asdict(self.config),
            "rng": json.dumps(self.rng.bit_generator.state),
            "generator": self.generator.get_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.net.load_state_dict(state["net"])
        self.averaged.module.load_state_dict(state["ema"])
        self.averaged.n_averaged.fill_(state["averaged"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.rng.bit_generator.state = json.loads(state["rng"])
        self.generator.set_state(state["generator"])

    def save(self, path: Path) -> None:
        """Write whole or not at all."""
        temporary = path.with_suffix(".tmp")
        torch.save(self.state(), temporary)
        temporary.replace(path)


def train(config: TrainConfig, resume: bool = False) -> Path:
    """Run to the end; returns the last checkpoint."""
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.json").write_text(json.dumps(asdict(config), indent=2))
    trainer = Trainer(config)
    checkpoint = output / "last.pt"
    if resume and checkpoint.exists():
        trainer.load_state(torch.load(checkpoint, weights_only=True))
        trainer.config = replace(config)
    photos = Photos(config.data)
    print(f"{len(photos.photos)} photos, {len(photos.skipped)} unreadable")
    means: dict[str, float] = {}
    began = time.monotonic()
    with (
        (output / "log.jsonl").open("a") as log,
        tqdm(total=config.steps, initial=trainer.step, mininterval=5) as bar,
    ):
        while trainer.step < config.steps:
            for name, value in trainer.advance(photos).items():
                means[name] = 0.98 * means.get(name, value) + 0.02 * value
            bar.update()
            if trainer.step % 20 == 0:
                bar.set_postfix({k: f"{v:.4f}" for k, v in means.items()}, refresh=False)
                row = {"step": trainer.step, "seconds": time.monotonic() - began} | means
                log.write(json.dumps(row) + "\n")
                log.flush()
            if trainer.step % config.save_every == 0 or trainer.step == config.steps:
                trainer.save(checkpoint)
            if config.validation and (
                trainer.step % config.validate_every == 0 or trainer.step == config.steps
            ):
                net = trainer.averaged.module
                assert isinstance(net, SCSNet)
                figures = validate(net, Path(config.validation), config.size, output / "pictures")
                log.write(json.dumps({"step": trainer.step} | figures) + "\n")
                log.flush()
                bar.write(f"{trainer.step}: " + json.dumps(figures))
    return checkpoint
