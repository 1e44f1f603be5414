"""Published weights of other networks, and VGG16 features for the perceptual loss (Eq. 6)."""

from __future__ import annotations

import pickle

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from scsnet import checkpoint

BROKEN = (
    *(RuntimeError, ValueError, LookupError, EOFError, TypeError, AttributeError),
    pickle.UnpicklingError,
)
"""Exceptions that `torch.load` raises for a file of another kind."""
CONVOLUTIONS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24,))
"""Numbers of VGG16's convolutions in `features`, block by block, up to conv5_1."""


def load_tensors(source: str) -> dict[str, Tensor]:
    """Load every tensor of a .safetensors file, a path or "hf:owner/repo/file", as float32.

    Raises the errors of `scsnet.checkpoint.resolve`, and ValueError for a file of another kind.
    """
    path = checkpoint.resolve(source)
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable .safetensors file: {error}") from error


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


class VGG(nn.Module):
    """Features relu1_1, relu2_1, ... relu5_1 of VGG16 (Eq. 6), frozen; the file has torchvision's names."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, source: str) -> None:
        super().__init__()
        weights = load_tensors(source)
        self.convs = nn.ModuleDict()
        for n in (n for block in CONVOLUTIONS for n in block):
            weight, bias = (weights.get(f"features.{n}.{kind}") for kind in ("weight", "bias"))
            if weight is None or bias is None or weight.shape[2:] != (3, 3):
                raise ValueError(f"{source} holds no VGG16: no 3x3 convolution features.{n}")
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            conv.load_state_dict({"weight": weight, "bias": bias})
            self.convs[str(n)] = conv
        for name, values in (("mean", (0.485, 0.456, 0.406)), ("deviation", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Map sRGB (B, 3, H, W), about 0..1, to relu{l}_1, l = 1..5, each (B, C, H / 2^(l-1), W / 2^(l-1))."""
        x = (rgb - self.mean) / self.deviation
        features: list[Tensor] = []
        for block in CONVOLUTIONS:
            x = F.max_pool2d(x, 2) if features else x
            for n in block:
                x = F.relu(self.convs[str(n)](x))
                if n == block[0]:
                    features.append(x)
        return features
