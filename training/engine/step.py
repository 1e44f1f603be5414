"""One training step of both networks: forward pass, losses, gradients, optimizers; the state of a checkpoint."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
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
from training.config.schedule import Place, Plan
from training.data.dataset import Batch
from training.engine.checkpoints import RunError
from training.engine.distributed import global_mean
from training.models.backbones import VGG
from training.models.discriminator import Discriminator
from training.models.generator import Generator, Prediction, build_network

Terms = dict[str, Tensor]


class Trainer:
    """Generator, discriminator, their optimizers and the moving average.

    `advance` takes one step; `state` and `load_state` save and restore everything.
    """

    def __init__(self, config: TrainConfig, plan: Plan, accelerator: Accelerator) -> None:
        self.config, self.plan, self.accelerator = config, plan, accelerator
        self.device: torch.device = accelerator.device
        torch.manual_seed(config.seed)
        np.random.seed(config.seed % 2**32)  # noqa: NPY002 -- nothing here uses it, trackers may
        random.seed(config.seed)
        self.net = build_network(config).to(self.device)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.generator = Generator(self.net, config).to(self.device)
        self.discriminator = (
            Discriminator(config.discriminator_width).to(self.device)
            if config.uses("adversarial")
            else None
        )
        self.vgg = (
            VGG(config.perceptual_weights).to(self.device) if config.uses("perceptual") else None
        )
        self.averaged = (
            AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
            if config.ema
            else None
        )
        self.wrapped = accelerator.prepare_model(self.generator)
        self.wrapped_discriminator = (
            accelerator.prepare_model(self.discriminator) if self.discriminator else None
        )
        networks = [n for n in (self.generator, self.discriminator) if n is not None]
        self.optimizers = [
            torch.optim.Adam(
                network.parameters(),
                lr=0.0,  # set in every step
                betas=config.betas,
                weight_decay=config.weight_decay,
                fused=True,
            )
            for network in networks
        ]
        self.step = 0

    @property
    def result(self) -> SCSNet:
        """The network to validate and export: the moving average, or the network itself without one."""
        net = self.averaged.module if self.averaged is not None else self.net
        assert isinstance(net, SCSNet)
        return net

    def compute_losses(
        self, prediction: Prediction, batch: Batch, place: Place
    ) -> tuple[Terms, Tensor]:
        """The unweighted losses of the generator, and the target as normalised planes (B, 3, h, w)."""
        stage, config = place.stage, self.config
        scale = self.net.config.chroma_scale
        target = rgb_to_lab(batch.high)
        lab = denormalize_lab(prediction.planes, self.net.config)
        if place.unrelated:
            reference = rgb_to_lab(batch.reference)
            content = losses.unrelated_reference_loss(lab, target, reference, scale)
        elif place.automatic:
            content = losses.content_loss(
                lab, target, stage.chroma_weight, stage.huber_delta, global_mean, scale
            )
        else:
            content = losses.content_loss(lab, target, chroma_scale=scale)
        terms = {"content": content}
        if place.mode.supervised:
            terms["supervision"] = prediction.supervision
        if stage.perceptual and self.vgg is not None and not place.unrelated:
            with torch.no_grad():
                features = self.vgg(batch.high)
            terms["perceptual"] = losses.perceptual_loss(self.vgg(lab_to_rgb(lab)), features)
        planes = normalize_lab(target, self.net.config)
        if stage.adversarial and self.discriminator is not None:
            self.discriminator.requires_grad_(False)
            scores = self._discriminate(self.discriminator, planes, prediction.planes)
            self.discriminator.requires_grad_(True)
            terms["adversarial"] = losses.generator_loss(
                *scores, config.adversarial_form, global_mean
            )
        return terms, planes

    def _discriminate(
        self, discriminator: nn.Module, target: Tensor, prediction: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores of targets and predictions, (B, 3, h, w) planes, in one pass of the discriminator."""
        bf16 = self.config.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            real, fake = discriminator(torch.cat([target, prediction])).chunk(2)
        return real, fake

    def backward(self, batch: Batch, place: Place) -> Terms:
        """Accumulate the gradients of both networks for one part of a batch; returns the losses."""
        prediction = self.wrapped(batch, place.mode)
        terms, target = self.compute_losses(prediction, batch, place)
        weights = {name: getattr(place.stage, name) for name in terms}
        weights["supervision"] = place.supervision
        parts = place.stage.accumulate
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
        """Take one step of the optimizers; returns the losses and the unreadable photos of the batch."""
        place = self.plan.place(self.step)
        stage = place.stage
        sums: Terms = {}
        skipped: tuple[str, ...] = ()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = place.learning_rate
            optimizer.zero_grad(set_to_none=True)
        # the optimizer skips parameters without a gradient
        self.net.texture_encoder.requires_grad_(stage.trains == "everything")
        for part in range(stage.accumulate):
            batch = next(parts)
            skipped += batch.skipped
            with self._synchronized(last=part + 1 == stage.accumulate):
                terms = self.backward(batch.to(self.device), place)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term / stage.accumulate
        if stage.reference_fraction:  # each kind of batch has its own curve
            kind = "auto" if place.automatic else "unrelated" if place.unrelated else "ref"
            sums[f"{kind}_content"] = sums.pop("content")
        limit = self.config.clip or torch.inf
        sums["gradient"] = nn.utils.clip_grad_norm_(self.generator.parameters(), limit).detach()
        for optimizer in self.optimizers:
            optimizer.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.net)
        self.step += 1
        return sums, skipped

    def _synchronized(self, last: bool) -> ExitStack:
        """Exchange gradients between processes in the last part of a batch only."""
        stack = ExitStack()
        if not last:
            for network in (self.wrapped, self.wrapped_discriminator):
                if network is not None:
                    stack.enter_context(self.accelerator.no_sync(network))
        return stack

    def state(self) -> dict[str, Any]:
        """The content of a checkpoint."""
        return {
            "format": "scsnet-training-1",
            "config": self.config.to_dict(),
            "network": self.net.config.to_dict(),
            "step": self.step,
            "photos": self.plan.photos,
            "generator": self.generator.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "discriminator": None
            if self.discriminator is None
            else self.discriminator.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": {"torch": torch.get_rng_state(), "python": list(random.getstate()[1])},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the content of a checkpoint.

        Raises: RunError if it is of another network, or of a run with other parts (moving average, discriminator).
        """
        for name, option, part in (
            ("averaged", "ema", self.averaged),
            ("discriminator", "adversarial", self.discriminator),
        ):
            if (state.get(name) is None) != (part is None):
                has, now = ("a", "without") if state.get(name) is not None else ("no", "with")
                raise RunError(
                    f"{option} cannot be switched on or off in the middle of a run: the checkpoint has {has} "
                    f"{name} network, this config is {now} one"
                )
        try:
            self.generator.load_state_dict(state["generator"])
            if self.averaged is not None:
                self.averaged.load_state_dict(state["averaged"])
            if self.discriminator is not None:
                self.discriminator.load_state_dict(state["discriminator"])
            for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(values)
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise RunError(f"the checkpoint is of another network: {reason}") from error
        torch.set_rng_state(state["random"]["torch"])
        version, _, gauss = random.getstate()
        random.setstate((version, tuple(state["random"]["python"]), gauss))
        self.step = state["step"]
