"""Both networks, their optimizers and one step of them: everything that a checkpoint holds."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
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
from training.config.stage import Stage
from training.data.dataset import Batch
from training.engine.checkpoints import RunError
from training.engine.distributed import global_mean
from training.models.auxiliary_heads import pooled
from training.models.backbones import VGG, MobileNet
from training.models.discriminator import Discriminator
from training.models.generator import Generator, Prediction, build_network, swap_references
from training.teaching import Teacher, cells, difference

Terms = dict[str, Tensor]
SEMANTIC_SIZE = 128  # pixels that MobileNet looks at


class Trainer:
    """Create it, `load_state` to go on with a run, then `advance` step by step."""

    def __init__(self, config: TrainConfig, plan: Plan, accelerator: Accelerator) -> None:
        self.config, self.plan, self.accelerator = config, plan, accelerator
        self.device: torch.device = accelerator.device
        torch.manual_seed(config.seed)
        np.random.seed(config.seed % 2**32)  # noqa: NPY002 -- nothing here uses it, trackers may
        random.seed(config.seed)
        used = {
            name
            for name in ("perceptual", "adversarial", "distillation", "teaching")
            if any(getattr(s, name) for s in config.stages)
        }
        self.net = build_network(config).to(self.device)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.generator = Generator(self.net, config).to(self.device)
        self.discriminator = (
            Discriminator(config.discriminator_width).to(self.device)
            if "adversarial" in used
            else None
        )
        self.vgg = VGG(config.perceptual_weights).to(self.device) if "perceptual" in used else None
        self.mobilenet = (
            MobileNet(config.distillation_weights).to(self.device)
            if "distillation" in used
            else None
        )
        self.teacher = Teacher.load(config.teacher).to(self.device) if "teaching" in used else None
        self.averaged = (
            AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
            if config.ema
            else None
        )
        self.wrapped = accelerator.prepare_model(self.generator)
        self.wrapped_discriminator = (
            accelerator.prepare_model(self.discriminator) if self.discriminator else None
        )
        encoders = [p for module in self._encoders for p in module.parameters()]
        apart = set(encoders)
        rest = [p for p in self.generator.parameters() if p not in apart]
        self.optimizers = [self._adam(rest, encoders)]
        if self.discriminator is not None:
            self.optimizers.append(self._adam(list(self.discriminator.parameters())))
        self.step = 0

    def _adam(self, *groups: list[nn.Parameter]) -> torch.optim.Adam:
        c = self.config
        return torch.optim.Adam(
            [{"params": group} for group in groups],
            lr=0.0,
            betas=c.betas,
            weight_decay=c.weight_decay,
            fused=True,
        )

    @property
    def result(self) -> SCSNet:
        """The network to validate and export: the moving average where there is one."""
        net = self.averaged.module if self.averaged is not None else self.net
        assert isinstance(net, SCSNet)
        return net

    def terms(self, made: Prediction, batch: Batch, place: Place) -> tuple[Terms, Tensor, Tensor]:
        """Every term of the generator's loss that counts, unweighted; truth and result as planes."""
        stage, config = place.stage, self.config
        truth = rgb_to_lab(batch.high)
        if stage.coarse:
            truth = pooled(truth, made.planes)
        lab = denormalize_lab(made.planes, self.net.config)
        stretch = lab.new_tensor([1.0, *stage.stretch]).view(1, 3, 1, 1)
        shaping = ("rebalance", "coldness", "softness", "redness") if place.automatic else ()
        shape = {name: getattr(stage, name) for name in shaping}
        if place.strange:
            given = swap_references(rgb_to_lab(batch.low))
            terms = {"content": losses.stranger_loss(lab, truth, given, stage.coherence)}
        else:
            asked = truth * stretch if place.automatic else truth
            terms = {"content": losses.content_loss(lab, asked, mean=global_mean, **shape)}
        if place.mode.supervised:
            terms["supervision"] = made.deep
        if place.mode.classified:
            terms["classification"] = made.classes
        if stage.perceptual and self.vgg is not None and not place.strange:
            narrow = config.precision == "bf16" and not config.perceptual_float32
            with torch.autocast(self.device.type, torch.bfloat16, enabled=narrow):
                with torch.no_grad():
                    target = self.vgg(batch.high)
                terms["perceptual"] = losses.perceptual_loss(self.vgg(lab_to_rgb(lab)), target)
        if stage.distillation and self.mobilenet is not None:
            with torch.no_grad():
                enlarged = nn.functional.interpolate(
                    batch.low, (SEMANTIC_SIZE, SEMANTIC_SIZE), mode="bilinear"
                )
                meaning = self.mobilenet(enlarged)
            terms["distillation"] = losses.cosine_distance(made.semantics, meaning)
        if stage.teaching and place.automatic and self.teacher is not None:
            with self._narrow(), torch.no_grad():
                expected = self.teacher.expected(
                    batch.wide, stage.temperature, stage.rebalance, stage.coldness
                )
            asked = expected * stretch[:, 1:]
            terms["teaching"] = difference(cells(lab[:, 1:]), asked, stage.redness)
        true_planes = normalize_lab(truth, self.net.config)
        if stage.adversarial and self.discriminator is not None:
            self.discriminator.requires_grad_(False)
            scores = self._judged(self.discriminator, true_planes, made.planes)
            self.discriminator.requires_grad_(True)
            terms["adversarial"] = losses.generator_loss(
                *scores, config.adversarial_form, global_mean
            )
        return terms, true_planes, made.planes

    def _narrow(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"
        )

    def _judged(
        self, discriminator: nn.Module, truth: Tensor, made: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One pass of the discriminator over both: its numbers for the truth and for what was made."""
        with self._narrow():
            real, fake = discriminator(torch.cat([truth, made])).chunk(2)
        return real, fake

    def backward(self, batch: Batch, place: Place) -> Terms:
        """Gradients of both networks for one part of a batch are added up; the terms come back."""
        made = self.wrapped(batch, place.mode)
        terms, truth, planes = self.terms(made, batch, place)
        weights = {name: getattr(place.stage, name) for name in terms}
        weights["supervision"] = place.supervision
        parts = place.stage.accumulate
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        (total / parts).backward()
        if "adversarial" in terms and self.wrapped_discriminator is not None:
            scores = self._judged(self.wrapped_discriminator, truth, planes.detach())
            terms["discriminator"] = losses.discriminator_loss(
                *scores, self.config.adversarial_form, global_mean
            )
            (terms["discriminator"] / parts).backward()
        return {name: term.detach() for name, term in terms.items()}

    def advance(self, parts: Iterator[Batch]) -> tuple[Terms, tuple[str, ...]]:
        """One step of the optimizers; the terms, and the bad photos that were met."""
        place = self.plan.place(self.step)
        sums: Terms = {}
        skipped: tuple[str, ...] = ()
        for optimizer in self.optimizers:
            rates = (1.0, place.stage.encoder_rate)  # the discriminator has no second group
            for group, rate in zip(optimizer.param_groups, rates, strict=False):
                group["lr"] = place.learning_rate * rate
            optimizer.zero_grad(set_to_none=True)
        self.net.requires_grad_(False)  # the optimizer passes by what has no gradient
        for module in self._learners(place.stage):
            module.requires_grad_(True)
        if not place.stage.encoder_rate:
            for module in self._encoders:
                module.requires_grad_(False)
        for part in range(place.stage.accumulate):
            batch = next(parts)
            skipped += batch.skipped
            with self._without_exchange() if part + 1 < place.stage.accumulate else nullcontext():
                terms = self.backward(batch.to(self.device), place)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term / place.stage.accumulate
        if place.stage.automatic_every != 1:  # all kinds in one number would hide each
            kind = "auto" if place.automatic else "stranger" if place.strange else "ref"
            sums[f"{kind}_content"] = sums.pop("content")
        limit = self.config.clip or torch.inf
        sums["gradient"] = nn.utils.clip_grad_norm_(self.generator.parameters(), limit).detach()
        for optimizer in self.optimizers:
            optimizer.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.net)
        self.step += 1
        return sums, skipped

    def _learners(self, stage: Stage) -> Iterable[nn.Module]:
        """The parts of the network that change. The colour branch stands on the first convolution."""
        net = self.net
        if stage.learns == "reference":
            return net.color_branch.only_reference
        if stage.learns == "decoder":
            return (net.color_branch.decoder,)
        if stage.learns == "color":
            return (net.color_branch,)
        kept = {net.color_branch, net.initial} if stage.learns == "texture" else set()
        if not stage.trains_texture:
            kept.add(net.texture_encoder)
        return [module for module in net.children() if module not in kept]

    @property
    def _encoders(self) -> tuple[nn.Module, ...]:
        """phi_E^s and phi_E^r with the convolutions before them: what `encoder_rate` is for."""
        branch = self.net.color_branch
        return (
            self.net.initial,
            branch.source_encoder,
            branch.reference_initial,
            branch.reference_encoder,
        )

    def _without_exchange(self) -> Any:
        return self.accelerator.no_sync(self.wrapped)

    def state(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
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
        """The inverse of `state`. Errors: RunError where it is of another network."""
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
            raise RunError(
                f"the checkpoint is of another network or other losses: {reason}"
            ) from error
        torch.set_rng_state(state["random"]["torch"])
        version, _, gauss = random.getstate()
        random.setstate((version, tuple(state["random"]["python"]), gauss))
        self.step = state["step"]
