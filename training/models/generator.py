"""The generator as it is trained: SCSNet and the heads of the deep supervision."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scsnet import Features, SCSNet, checkpoint
from scsnet.color import normalize_lab, rgb_to_lab
from training.config import TrainConfig
from training.config.schedule import Mode
from training.data.dataset import Batch
from training.data.references import warp
from training.models.auxiliary_heads import Supervision, initialize_siamese, run_color_branch


class Prediction(NamedTuple):
    """Output of the forward pass."""

    planes: Tensor
    """Normalised LAB of the window (B, 3, h, w), float32."""
    supervision: Tensor
    """Loss of the deep supervision, a scalar."""


class Generator(nn.Module):
    """SCSNet with the heads of the deep supervision."""

    def __init__(self, net: SCSNet, config: TrainConfig) -> None:
        super().__init__()
        self.net = net
        self.supervision = Supervision(4 * net.config.width)
        self.bf16 = config.precision == "bf16"

    def forward(self, batch: Batch, mode: Mode) -> Prediction:
        """Colorize and enlarge one batch, with elastic copies of `batch.reference` as references or automatically.

        Evaluates nothing but what the losses use: DistributedDataParallel waits for the gradient of
        whatever it finds in the output.
        """
        net = self.net
        luminance = normalize_lab(rgb_to_lab(batch.input)[:, :1], net.config)
        ab = normalize_lab(rgb_to_lab(batch.low), net.config)[:, 1:]
        reference = None
        if not mode.automatic:
            reference = warp(
                normalize_lab(rgb_to_lab(batch.reference), net.config), batch.distortion
            )
        heads = self.supervision if mode.supervised else None
        with torch.autocast(luminance.device.type, torch.bfloat16, enabled=self.bf16):
            initial = net.initial(luminance)
            source = net.color_branch.source_encoder(initial)
            branch = run_color_branch(net, heads, source, reference, ab)
            texture = net.texture_encoder(initial) if mode.texture else initial
            color = net.color_branch.decoder(branch.attended)
            features = Features(luminance, color, source, texture, branch.reference)
            planes = net.decode(features, batch.size, batch.window)
        return Prediction(planes.float(), branch.supervision)


def build_network(config: TrainConfig) -> SCSNet:
    """The network that a run starts from, of a weights file or with random weights, in training mode.

    Its working size is the input size of the last stage, or that of the file where it is larger.
    """
    trained_at = config.stages[-1].size
    if config.init:
        net = checkpoint.load(config.init, dtype=torch.float32)
        trained_at = max(trained_at, net.config.working_size)
    else:
        net = SCSNet(config.network)
        if config.siamese:
            initialize_siamese(net)
    net.config = replace(net.config, working_size=trained_at)
    return net.train().requires_grad_(True)
