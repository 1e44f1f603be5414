"""The optimizer step: both networks, their losses, optimizers and moving average, and their state for checkpoints."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, nullcontext
from typing import Any

import numpy as np
import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from scsnet import SCSNet
from scsnet.color import denormalize_lab, lab_to_rgb, normalize_lab, rgb_to_lab
from training import losses
from training.config import TrainConfig
from training.config.schedule import Schedule, StepInfo
from training.config.stage import Stage
from training.data.dataset import Batch
from training.engine.checkpoints import RunError
from training.engine.distributed import global_mean
from training.models.backbones import VGG
from training.models.discriminator import Discriminator
from training.models.generator import Prediction, TrainingModel, build_network

Terms = dict[str, Tensor]


class Trainer:
    """Everything that a checkpoint holds. Create it, `load_state` to resume, then `advance` step by step."""

    def __init__(self, config: TrainConfig, schedule: Schedule, accelerator: Accelerator) -> None:
        self.config, self.schedule, self.accelerator = config, schedule, accelerator
        self.device: torch.device = accelerator.device
        torch.manual_seed(config.seed)
        np.random.seed(config.seed % 2**32)  # noqa: NPY002 -- for trackers that may use it
        random.seed(config.seed)
        adversarial = any(stage.adversarial for stage in config.stages)
        perceptual = any(stage.perceptual for stage in config.stages)
        self.net = build_network(config).to(self.device)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = TrainingModel(self.net, config).to(self.device)
        self.discriminator = (
            Discriminator(config.discriminator_width).to(self.device) if adversarial else None
        )
        self.vgg = VGG(config.perceptual_weights).to(self.device) if perceptual else None
        self.averaged = (
            AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
            if config.ema
            else None
        )
        self.wrapped = accelerator.prepare_model(self.model)
        self.wrapped_discriminator = (
            accelerator.prepare_model(self.discriminator) if self.discriminator else None
        )
        self.optimizers = [self._make_optimizer(self.model)]
        if self.discriminator is not None:
            self.optimizers.append(self._make_optimizer(self.discriminator))
        self.step = 0

    def _make_optimizer(self, module: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(
            module.parameters(),
            lr=0.0,
            betas=self.config.betas,
            weight_decay=self.config.weight_decay,
            fused=True,
        )

    @property
    def result(self) -> SCSNet:
        """The network to validate and export: the moving average if there is one."""
        net = self.averaged.module if self.averaged is not None else self.net
        assert isinstance(net, SCSNet)
        return net

    def compute_terms(
        self, prediction: Prediction, batch: Batch, info: StepInfo
    ) -> tuple[Terms, Tensor]:
        """Return every unweighted term of the generator's loss, and the target as normalised planes (B, 3, h, w)."""
        stage = info.stage
        target = rgb_to_lab(batch.high)
        if prediction.matched is not None:
            target = losses.move_target(target, prediction.matched, batch.other)
        lab = denormalize_lab(prediction.planes, self.net.config)
        options = (
            {"chroma_weight": stage.chroma_weight, "huber_delta": stage.huber_delta}
            if info.automatic
            else {}
        )
        content = losses.content_loss(
            lab,
            target,
            mean=global_mean,
            enlarged=batch.enlarged,
            scale=self.net.config.chroma_scale,
            **options,
        )
        terms = {"content": content}
        if info.mode.supervised:
            terms["supervision"] = prediction.supervision
        if stage.perceptual and self.vgg is not None:
            with torch.no_grad():
                features = self.vgg(batch.high)
            terms["perceptual"] = losses.perceptual_loss(self.vgg(lab_to_rgb(lab)), features)
        target_planes = normalize_lab(target, self.net.config)
        if stage.adversarial and self.discriminator is not None:
            self.discriminator.requires_grad_(False)
            scores = self._discriminate(self.discriminator, target_planes, prediction.planes)
            self.discriminator.requires_grad_(True)
            terms["adversarial"] = losses.generator_loss(
                *scores, self.config.adversarial_form, global_mean
            )
        return terms, target_planes

    def _discriminate(
        self, discriminator: nn.Module, real: Tensor, fake: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the discriminator's outputs for both from one pass, as the relativistic means need."""
        bf16 = self.config.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            scores = discriminator(torch.cat([real, fake]))
        real_scores, fake_scores = scores.chunk(2)
        return real_scores, fake_scores

    def backward(self, batch: Batch, info: StepInfo) -> Terms:
        """Accumulate the gradients of both networks for one part of a batch; return the terms of the losses."""
        prediction = self.wrapped(batch, info.mode)
        terms, target = self.compute_terms(prediction, batch, info)
        weights = {
            "content": losses.CONTENT,
            "supervision": info.supervision,
            "perceptual": info.stage.perceptual,
            "adversarial": info.stage.adversarial,
        }
        parts = info.stage.accumulate
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        (total / parts).backward()
        if "adversarial" in terms and self.wrapped_discriminator is not None:
            scores = self._discriminate(
                self.wrapped_discriminator, target, prediction.planes.detach()
            )
            terms["discriminator"] = losses.discriminator_loss(
                *scores, self.config.adversarial_form, global_mean
            )
            (terms["discriminator"] / parts).backward()
        return {name: term.detach() for name, term in terms.items()}

    def advance(self, parts: Iterator[Batch]) -> tuple[Terms, tuple[str, ...]]:
        """Run one optimizer step; return the terms of the losses and the photos that could not be read."""
        info = self.schedule.at(self.step)
        sums: Terms = {}
        skipped: tuple[str, ...] = ()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = info.learning_rate
            optimizer.zero_grad(set_to_none=True)
        self.net.requires_grad_(False)  # Adam skips parameters without a gradient
        for module in self._trained_modules(info.stage):
            module.requires_grad_(True)
        if self.net.color_branch.guidance is not None:
            self.net.color_branch.guidance.prior.requires_grad_(False)
        for part in range(info.stage.accumulate):
            batch = next(parts)
            skipped += batch.skipped
            last = part + 1 == info.stage.accumulate
            with nullcontext() if last else self._without_synchronisation():
                terms = self.backward(batch.to(self.device), info)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term / info.stage.accumulate
        # the content loss of automatic and referential batches differs too much for one mean
        sums[f"{'auto' if info.automatic else 'ref'}_content"] = sums.pop("content")
        limit = self.config.clip or torch.inf
        sums["gradient"] = nn.utils.clip_grad_norm_(self.model.parameters(), limit).detach()
        for optimizer in self.optimizers:
            optimizer.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.net)
        self.step += 1
        return sums, skipped

    def _trained_modules(self, stage: Stage) -> Iterable[nn.Module]:
        """Return the modules that a stage updates."""
        net = self.net
        if stage.trains == "color":
            return (net.color_branch,)
        if stage.trains == "details":
            return net.texture_encoder, net.head
        frozen = {net.texture_encoder} if stage.trains == "all_but_texture" else set()
        return [module for module in net.children() if module not in frozen]

    def _without_synchronisation(self) -> ExitStack:
        """Keep DistributedDataParallel from exchanging the gradients of a part that is not the last."""
        stack = ExitStack()
        for module in (self.wrapped, self.wrapped_discriminator):
            if module is not None:
                stack.enter_context(self.accelerator.no_sync(module))
        return stack

    def checksum(self) -> Tensor:
        """Return a scalar int64 that differs between processes whose weights have diverged.

        Summing the bits of the float32 weights is exact: no order of summation changes it, on any device.
        """
        networks = [n for n in (self.model, self.discriminator) if n is not None]
        parameters = [p.detach() for network in networks for p in network.parameters()]
        return torch.stack([p.view(torch.int32).sum(dtype=torch.int64) for p in parameters]).sum()

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint holds."""
        return {
            "format": "scsnet-training-2",
            "config": self.config.to_dict(),
            "network": self.net.config.to_dict(),
            "step": self.step,
            "photos": self.schedule.photos,
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "discriminator": None
            if self.discriminator is None
            else self.discriminator.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": {"torch": torch.get_rng_state(), "python": list(random.getstate()[1])},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state`. Raises RunError if it belongs to another network or other losses."""
        for name, module in (("averaged", self.averaged), ("discriminator", self.discriminator)):
            if (module is None) != (state.get(name) is None):
                option = "ema" if name == "averaged" else "adversarial"
                raise RunError(f"{option} cannot be switched on or off in the middle of a run")
        try:
            self.model.load_state_dict(state["model"])
            if self.averaged is not None:
                self.averaged.load_state_dict(state["averaged"])
            if self.discriminator is not None:
                self.discriminator.load_state_dict(state["discriminator"])
            for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(values)
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise RunError(
                f"the checkpoint belongs to another network or other losses: {reason}"
            ) from error
        torch.set_rng_state(state["random"]["torch"])
        version, _, gauss = random.getstate()
        random.setstate((version, tuple(state["random"]["python"]), gauss))
        self.step = state["step"]
