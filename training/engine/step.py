"""The optimizer step: both networks, their losses, optimizers and moving average, and their state for checkpoints."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

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
from training.engine import checkpoints
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
        self.adversarial: Any = {"form": config.adversarial_form, "mean": global_mean}
        torch.manual_seed(config.seed)
        random.seed(config.seed)
        adversarial = any(stage.adversarial for stage in config.stages)
        perceptual = any(stage.perceptual for stage in config.stages)
        self.net = build_network(config).to(self.device)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = TrainingModel(self.net, config).to(self.device)
        self.discriminator: Discriminator | None = None
        self.vgg = self.averaged = self.wrapped_discriminator = None
        if adversarial:
            self.discriminator = Discriminator(config.discriminator_width).to(self.device)
        if perceptual:
            self.vgg = VGG(config.perceptual_weights).to(self.device)
        if config.ema:
            update = get_ema_multi_avg_fn(config.ema)
            self.averaged = AveragedModel(self.net, multi_avg_fn=update)
        self.wrapped = accelerator.prepare_model(self.model)
        self.optimizers = [self._make_optimizer(self.model)]
        if self.discriminator is not None:
            self.wrapped_discriminator = accelerator.prepare_model(self.discriminator)
            self.optimizers.append(self._make_optimizer(self.discriminator))
        self.step = 0

    def _make_optimizer(self, module: nn.Module) -> torch.optim.Adam:
        options: Any = {"betas": self.config.betas, "weight_decay": self.config.weight_decay}
        return torch.optim.Adam(module.parameters(), lr=0.0, fused=True, **options)

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
        options: dict[str, Any] = {"mean": global_mean, "scale": self.net.config.chroma_scale}
        if info.automatic:
            options |= {"chroma_weight": stage.chroma_weight, "huber_delta": stage.huber_delta}
        terms = {"content": losses.content_loss(lab, target, enlarged=batch.enlarged, **options)}
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
            terms["adversarial"] = losses.generator_loss(*scores, **self.adversarial)
        return terms, target_planes

    def _discriminate(self, discriminator: nn.Module, *planes: Tensor) -> tuple[Any, Any]:
        """Return the discriminator's scores of real and fake planes from one pass, as the relativistic means need."""
        bf16 = self.config.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return discriminator(torch.cat(planes)).chunk(2)

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
            fake = prediction.planes.detach()
            scores = self._discriminate(self.wrapped_discriminator, target, fake)
            terms["discriminator"] = losses.discriminator_loss(*scores, **self.adversarial)
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
            with ExitStack() as stack:
                if part + 1 < info.stage.accumulate:  # gradients are exchanged after the last part
                    for module in filter(None, (self.wrapped, self.wrapped_discriminator)):
                        stack.enter_context(self.accelerator.no_sync(module))
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

    def checksum(self) -> Tensor:
        """Return a scalar int64 that differs between processes whose weights have diverged.

        Summing the bits of the float32 weights is exact: no order of summation changes it, on any device.
        """
        networks = [n for n in (self.model, self.discriminator) if n is not None]
        parameters = [p.detach() for network in networks for p in network.parameters()]
        return torch.stack([p.view(torch.int32).sum(dtype=torch.int64) for p in parameters]).sum()

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint holds."""
        averaged, discriminator = self.averaged, self.discriminator
        return {
            "format": checkpoints.FORMAT,
            "config": self.config.to_dict(),
            "network": self.net.config.to_dict(),
            "step": self.step,
            "photos": self.schedule.photos,
            "model": self.model.state_dict(),
            "averaged": averaged and averaged.state_dict(),
            "discriminator": discriminator and discriminator.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": {"torch": torch.get_rng_state(), "python": list(random.getstate()[1])},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state`. Raises RunError if it belongs to another network or other losses."""
        for name, option in (("averaged", "ema"), ("discriminator", "adversarial")):
            if (getattr(self, name) is None) != (state.get(name) is None):
                raise RunError(f"{option} cannot be switched on or off in the middle of a run")
        try:
            for name in ("model", "averaged", "discriminator"):
                if (module := getattr(self, name)) is not None:
                    module.load_state_dict(state[name])
            for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(values)
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            message = f"the checkpoint belongs to another network or other losses: {reason}"
            raise RunError(message) from error
        torch.set_rng_state(state["random"]["torch"])
        version, _, gauss = random.getstate()
        random.setstate((version, tuple(state["random"]["python"]), gauss))
        self.step = state["step"]
