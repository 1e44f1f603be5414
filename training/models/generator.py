"""What is trained of the generator: SCSNet and the 1x1 heads that only training needs."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scsnet import Features, SCSNet, checkpoint
from scsnet.color import normalize_lab, rgb_to_lab
from scsnet.tiling import resize_to_working_size
from training.config import TrainConfig
from training.config.schedule import Mode
from training.data.dataset import Batch
from training.data.references import warp
from training.models.auxiliary_heads import (
    Classification,
    Supervision,
    colored,
    pooled,
    siamese_start,
)
from training.models.backbones import MobileNet


class Prediction(NamedTuple):
    """What the forward pass gives to the losses."""

    planes: Tensor
    """Normalised LAB of the window (B, 3, h, w), float32; of a coarse stage the true L, at quarter size."""
    deep: Tensor
    """Loss of the deep supervision."""
    semantics: Tensor
    """What F_s says about the picture (B, 512, h, w); empty without distillation."""
    classes: Tensor
    """Loss of the heads that predict classes of colour."""


class Generator(nn.Module):
    """SCSNet with its heads; the forward pass goes step by step to reach the features inside."""

    def __init__(self, net: SCSNet, config: TrainConfig) -> None:
        super().__init__()
        self.net = net
        channels = 4 * net.config.width
        self.supervision = Supervision(channels)
        distills = any(stage.distillation for stage in config.stages)
        self.semantics = nn.Conv2d(channels, MobileNet.CHANNELS, 1) if distills else None
        classifies = any(stage.classification for stage in config.stages)
        self.classification = Classification(channels) if classifies else None
        self.bf16 = config.precision == "bf16"

    def forward(self, batch: Batch, mode: Mode) -> Prediction:
        """One batch, automatic or with its elastic references, or with those of its neighbours.

        Only what the losses use is computed: DistributedDataParallel waits for the gradient of
        whatever it finds in the output.
        """
        net = self.net
        luminance = normalize_lab(rgb_to_lab(batch.seen)[:, :1], net.config)
        small_lab = resize_to_working_size(rgb_to_lab(batch.low), batch.working_size)
        small = normalize_lab(small_lab, net.config)
        reference = None if mode.automatic else warp(small, batch.distortion)
        if mode.strange and reference is not None:
            reference = swap_references(reference)
        heads = self.supervision if mode.supervised else None
        with torch.autocast(luminance.device.type, torch.bfloat16, enabled=self.bf16):
            source = net.color_branch.source_encoder(
                net.initial(resize_to_working_size(luminance, batch.working_size))
            )
            made = colored(net, heads, source, reference, small[:, 1:])
            if mode.coarse:
                planes = self._coarse(made.attended, small)
            else:
                initial = net.initial(luminance)
                textured = net.texture_encoder(initial) if mode.texture else initial
                color = net.color_branch.decoder(made.attended)
                features = Features(luminance, color, source, textured, made.kept)
                planes = net.decode(features, batch.size, batch.window)
            semantics = source.new_zeros(0)
            if mode.distilled and self.semantics is not None:
                semantics = self.semantics(source)
            classes = made.deep.new_zeros(())
            if mode.classified and self.classification is not None:
                found = {"source": source, "attended": made.attended}
                classes = self.classification.loss(found, small_lab[:, 1:])
        return Prediction(planes.float(), made.deep, semantics, classes)

    def _coarse(self, attended: Tensor, small: Tensor) -> Tensor:
        """What the head after SAttn says of ab, with the L of `small` -> (B, 3, h / 4, w / 4)."""
        ab = self.supervision.heads["attended"](attended)
        return torch.cat([pooled(small[:, :1], ab), ab.float()], dim=1)


def swap_references(pictures: Tensor) -> Tensor:
    """Each picture of a batch (B, ...) gets that of its neighbour."""
    return pictures.roll(1, 0)


def build_network(config: TrainConfig) -> SCSNet:
    """The network that a run starts from: of a weights file, or untrained.

    It remembers the largest working size of the last stage, or that of the file where it is larger.
    """
    stage = config.stages[-1]
    trained_at = max(stage.working_sizes or (stage.size,))
    if config.init:
        net = checkpoint.load(config.init, dtype=torch.float32)
        trained_at = max(trained_at, net.config.working_size)
    else:
        net = SCSNet(config.network)
        if config.siamese:
            siamese_start(net)
    net.config = replace(net.config, working_size=trained_at)
    return net.train().requires_grad_(True)
