"""Published weights of other networks, and VGG features for the perceptual loss (Eq. 6)."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from scsnet import checkpoint

_CAFFE = re.compile(r"block(\d)_conv(\d)\.weight$")  # RGB 0..255 minus a mean, as VGG was trained
_TORCH = re.compile(r"features\.(\d+)\.weight$")  # RGB 0..1, ImageNet mean and deviation

BROKEN = (
    *(RuntimeError, ValueError, LookupError, EOFError, TypeError, AttributeError),
    pickle.UnpicklingError,
)
"""Exceptions that `torch.load` raises for a file of another kind."""


def load_tensors(source: str) -> dict[str, Tensor]:
    """Load every tensor of a .npz or .safetensors file, a path or "hf:owner/repo/file".

    Raises the errors of `scsnet.checkpoint.resolve`, and ValueError for a broken file or one of another kind.
    """
    path = checkpoint.resolve(source)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]).float() for name in arrays.files}
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (SafetensorError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npz or .safetensors file: {error}") from error


def load_pickle(source: str) -> dict[str, Tensor]:
    """Load the tensors of a .pth file, without running code in it.

    Raises the errors of `scsnet.checkpoint.resolve`, and ValueError for a file of another kind.
    """
    path = checkpoint.resolve(source)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except BROKEN as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is not a readable .pth file: {reason}") from error
    if not isinstance(weights, dict):
        raise ValueError(f"{path} holds no weights but a {type(weights).__name__}")
    return weights


def _make_convolution(weights: Mapping[str, Tensor], name: str) -> nn.Conv2d:
    weight = weights[f"{name}.weight"]
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    conv.load_state_dict({"weight": weight, "bias": weights[f"{name}.bias"]})
    return conv


def _blocks(weights: Mapping[str, Tensor]) -> tuple[list[list[str]], bool]:
    """Return the names of the convolutions, block by block, and whether they are in the caffe convention."""
    caffe = sorted((int(m[1]), int(m[2]), key) for key in weights if (m := _CAFFE.search(key)))
    if caffe:
        count = max(block for block, _, _ in caffe)
        names = [
            [k.removesuffix(".weight") for b, _, k in caffe if b == n] for n in range(1, count + 1)
        ]
        return names, True
    plain = sorted((int(m[1]), key) for key in weights if (m := _TORCH.search(key)))
    blocks: list[list[str]] = []
    before = -9
    for index, key in plain:
        if weights[key].ndim != 4:
            raise ValueError(f"{key} is no convolution: VGG with batch norm cannot be used")
        if index - before > 2:  # a pooling layer lies between
            blocks.append([])
        blocks[-1].append(key.removesuffix(".weight"))
        before = index
    return blocks, False


class VGG(nn.Module):
    """Features relu1_1, relu2_1, ... of VGG16 or VGG19 (Eq. 6), frozen; of as many of the five blocks as the file has."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, source: str) -> None:
        super().__init__()
        weights = load_tensors(source)
        blocks, self.caffe = _blocks(weights)
        if not blocks or weights[f"{blocks[0][0]}.weight"].shape != (64, 3, 3, 3):
            raise ValueError(
                f"{source} holds no VGG features: expected features.N.weight or blockB_convI.weight, "
                f"got {', '.join(sorted(weights)[:3])} ..."
            )
        if len(blocks) < 5:
            print(
                f"warning: {source} has {len(blocks)} of the 5 blocks of VGG: the perceptual loss uses these only"
            )
        last = len(blocks) - 1
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                _make_convolution(weights, name) for name in (names[:1] if n == last else names)
            )
            for n, names in enumerate(blocks)
        )
        mean = (123.68, 116.779, 103.939) if self.caffe else (0.485, 0.456, 0.406)
        deviation = (1.0, 1.0, 1.0) if self.caffe else (0.229, 0.224, 0.225)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def normalize(self, rgb: Tensor) -> Tensor:
        """Convert sRGB (B, 3, H, W), about 0..1, to the input of the first convolution."""
        return ((rgb * 255 if self.caffe else rgb) - self.mean) / self.deviation

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Map sRGB (B, 3, H, W), about 0..1, to relu{l}_1, l = 1.., each (B, C, H / 2^(l-1), W / 2^(l-1)).

        Features of the caffe convention are divided by 57.6, the deviation of its inputs, so that both
        conventions give a loss of about the same size.
        """
        x = self.normalize(rgb)
        features = []
        for n, block in enumerate(self.blocks):
            assert isinstance(block, nn.ModuleList)
            x = F.max_pool2d(x, 2) if n else x
            for i, conv in enumerate(block):
                x = F.relu(conv(x))
                if i == 0:
                    features.append(x / 57.6 if self.caffe else x)
        return features
