"""SCSNet as it is trained: with the heads of the deep supervision, on batches of training pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scsnet import Features, SCSNet, checkpoint
from scsnet.attention import VCAttn
from scsnet.color import denormalize_lab, normalize_lab, rgb_to_lab
from scsnet.features import ReferenceFeatures
from scsnet.prior import HIDDEN, SemanticGuidance
from scsnet.resample import STRIDE, spread_marked_colors
from training.config import TrainConfig
from training.config.schedule import Mode
from training.data.dataset import Batch
from training.data.references import warp
from training.models.backbones import load_tensors

SHARPNESS = 4.0  # factor on the standardised similarities before the softmax


class Prediction(NamedTuple):
    """Output of the forward pass."""

    planes: Tensor
    """Normalised LAB of the window (B, 3, h, w), float32."""
    supervision: Tensor
    """Loss of the deep supervision; 0 where the heads are not used."""
    matched: Tensor | None
    """ab (B, 2, h, w) of the window, CIE units, from references that are other photos; None where no step has them."""


class SupervisionHeads(nn.Module):
    """1x1 convolutions that predict ab at a quarter of the size from features inside the colour branch."""

    POINTS = ("reference", "aggregated", "extracted", "attended")

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Conv2d(channels, 2, 1) for name in self.POINTS})

    def loss(self, name: str, features: Tensor, ab: Tensor) -> Tensor:
        """Compute the L1 loss between the head's prediction and average-pooled ab.

        features: (B, C, h, w); ab: normalised, (B, 2, H, W).
        """
        target = F.adaptive_avg_pool2d(ab, (features.shape[2], features.shape[3]))
        return F.l1_loss(self.heads[name](features).float(), target)


@torch.no_grad()
def match_colors(
    guidance: SemanticGuidance, luminance: Tensor, reference: Tensor, ab: Tensor
) -> Tensor:
    """Return the mean ab (B, 2, h, w) of the cells of a reference that are similar to each cell of a photo.

    luminance, reference: normalised L (B, 1, H, W); ab: the reference's, (B, 2, H, W). Weights are the softmax of the
    similarity: the cosine between the prior's hidden features, standardised over all pairs of cells of the two photos.
    """
    source, other = (guidance.describe(planes)[:, :HIDDEN] for planes in (luminance, reference))
    with torch.autocast(luminance.device.type, enabled=False):
        keys = F.normalize(other.float().flatten(2), dim=1)  # (B, C, M)
        queries = F.normalize(source.float().flatten(2), dim=1).mT  # (B, N, C)
        similarity = queries @ keys
        mean = similarity.mean((1, 2), keepdim=True)
        deviation = similarity.std((1, 2), keepdim=True)
        weights = torch.softmax(SHARPNESS * (similarity - mean) / deviation, dim=2)
        cells = F.adaptive_avg_pool2d(ab.float(), (other.shape[2], other.shape[3])).flatten(2)
        return (cells @ weights.mT).unflatten(2, (source.shape[2], source.shape[3]))


class TrainingModel(nn.Module):
    """SCSNet and the heads of its deep supervision."""

    def __init__(self, net: SCSNet, config: TrainConfig) -> None:
        super().__init__()
        self.net = net
        self.supervision = SupervisionHeads(4 * net.config.width)
        self.bf16 = config.precision == "bf16"
        if any(stage.others for stage in config.stages) and net.config.prior == "none":
            raise ValueError("others needs a network with a prior, which matches the colours")

    def forward(self, batch: Batch, mode: Mode) -> Prediction:
        """Predict the window of a batch, automatically or with its elastically distorted references.

        Only what the losses use is computed: DistributedDataParallel waits for the gradient of every parameter that the
        output depends on.
        """
        net, branch = self.net, self.net.color_branch
        luminance = normalize_lab(rgb_to_lab(batch.input)[:, :1], net.config)
        clean = normalize_lab(rgb_to_lab(batch.low), net.config)
        loss, matched = luminance.new_zeros(()), None
        with torch.autocast(luminance.device.type, torch.bfloat16, enabled=self.bf16):
            initial = net.initial(luminance)
            source = branch.encode_source(initial, luminance)
            keys_values = None
            if not mode.automatic:
                reference = warp(clean, batch.distortion)
                if mode.others:
                    other = batch.other.view(-1, 1, 1, 1)
                    reference = torch.where(other, reference.roll(-1, 0), reference)
                    matched = self._match(luminance, reference, batch)
                mask = None
                if mode.masked:
                    mask = F.max_pool2d(batch.mask, STRIDE)
                    reference = spread_marked_colors(reference, batch.mask)
                encoded = branch.encode_reference(reference)
                if mode.supervised:
                    loss = loss + self.supervision.loss("reference", encoded, reference[:, 1:])
                keys_values = branch.cross_attention.compute_keys_values([encoded], [mask])
            aggregated = branch.aggregate(source, keys_values)
            extracted = branch.extractor.convolve(aggregated)
            attended = branch.extractor.attend(extracted)
            if mode.supervised:
                points = {"aggregated": aggregated, "extracted": extracted, "attended": attended}
                for name, value in points.items():
                    loss = loss + self.supervision.loss(name, value, clean[:, 1:])
            texture = net.texture_encoder(initial) if mode.texture else initial
            kept = None if keys_values is None else ReferenceFeatures(keys_values)
            features = Features(luminance, branch.decoder(attended), source, texture, kept)
            planes = net.decode(features, batch.size, batch.window)
        return Prediction(planes.float(), loss, matched)

    def _match(self, luminance: Tensor, reference: Tensor, batch: Batch) -> Tensor:
        """Return the references' colours in the window of the output, matched by the prior."""
        guidance = self.net.color_branch.guidance
        assert guidance is not None
        ab = denormalize_lab(reference, self.net.config)[:, 1:]
        cells = match_colors(guidance, luminance, reference[:, :1], ab)
        top, left, height, width = batch.window
        whole = F.interpolate(cells, batch.size, mode="bilinear")
        return whole[..., top : top + height, left : left + width]


def initialize_siamese(net: SCSNet) -> None:
    """Initialise phi_E^r by phi_E^s, and in all attention the keys by the queries and the reference's convolution by the source's.

    Similar content then has similar queries and keys from the first step. No weights are shared.
    """
    branch = net.color_branch
    branch.reference_encoder.load_state_dict(branch.source_encoder.state_dict())
    with torch.no_grad():
        branch.reference_initial.weight[:, :1].copy_(net.initial.weight)
        branch.reference_initial.weight[:, 1:].mul_(3)
    for module in net.modules():
        if isinstance(module, VCAttn):
            module.pre_reference.load_state_dict(module.pre_source.state_dict())
            module.key.load_state_dict(module.query.state_dict())


def build_network(config: TrainConfig) -> SCSNet:
    """Return the network that a run starts from: the weights of `config.init`, or a new one.

    Its working size is the input size of the last stage, or that of the weights if it is larger.
    """
    working_size = config.stages[-1].size
    if config.init:
        net = checkpoint.load(config.init, dtype=torch.float32)
        working_size = max(working_size, net.config.working_size)
    else:
        net = SCSNet(config.network)
        if config.siamese:
            initialize_siamese(net)
    if config.prior:
        net = add_prior(net, config.prior)
    net.config = replace(net.config, working_size=working_size)
    return net.train().requires_grad_(True)


def add_prior(net: SCSNet, source: str) -> SCSNet:
    """Return the network with the semantic prior of a file, in the place of its own if it has one.

    The outputs of a network without a prior stay the same until it is trained. Errors: those of `load_tensors`; ValueError
    if the file holds no prior.
    """
    result = SCSNet(replace(net.config, prior="efficientnet_lite2"))
    result.load_state_dict(net.state_dict(), strict=False)
    assert result.color_branch.guidance is not None
    try:
        result.color_branch.guidance.prior.load_state_dict(load_tensors(source))
    except RuntimeError as error:
        raise ValueError(f"{source} holds no semantic prior: {error}") from error
    return result
