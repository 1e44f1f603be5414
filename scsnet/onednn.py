"""Convolutions and linear layers on a CPU with what follows them done in the same pass (oneDNN).

PyTorch's own operators write a result, then read and write it once more for a ReLU or a sum, and write
the bias before the product. On a CPU with AMX those passes took more than half of CPM's time. oneDNN
does them while the numbers are in registers; PyTorch calls these operators when it compiles a network,
and they can be called without compiling.

Without gradients only, on x86, in float32 or in a bfloat16 that the CPU multiplies in hardware; `usable`
says where, and the callers do the same with PyTorch's operators elsewhere.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_OPERATORS = (
    "_linear_pointwise",
    "_convolution_pointwise",
    "_convolution_pointwise_",
    "_is_mkldnn_bf16_supported",
)


def _formats() -> frozenset[torch.dtype]:
    """What the operators can multiply here; nothing where they are missing."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return frozenset()  # measured on x86 alone
    if not torch.backends.mkldnn.is_available():
        return frozenset()
    if not all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS):
        return frozenset()
    bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return frozenset({torch.float32, torch.bfloat16} if bfloat16 else {torch.float32})


FORMATS = _formats()


@cache
def _works() -> bool:
    """Whether the operators take these arguments and give what PyTorch's own do: another release may differ."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # of the CPU alone
        x = torch.randn(1, 4, 5, 5)
        conv, layer = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 4)
    conv.requires_grad_(False)
    layer.requires_grad_(False)
    rows = x[0, 0, :, :4].contiguous()
    try:
        found = (
            convolve(x, conv, 0.2),
            convolve_add_to(x.clone(), conv, x, relu=True),
            linear(rows, layer, relu=True),
            product_relu(rows, layer.weight),
        )
    except (RuntimeError, TypeError):
        return False
    plain = conv(x)
    expected = (
        F.leaky_relu(plain, 0.2),
        F.relu(x + plain),
        F.relu(layer(rows)),
        F.relu(rows @ layer.weight),
    )
    return all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, expected, strict=True))


def usable(x: Tensor, layer: nn.Conv2d | nn.Linear) -> bool:
    """Whether `layer` may be applied to x by the functions below."""
    weight = layer.weight
    return (
        x.dtype in FORMATS
        and weight.dtype == x.dtype
        and x.device.type == "cpu"
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and _works()
    )


def product_relu(left: Tensor, right: Tensor) -> Tensor:
    """ReLU(left @ right): (m, k), (k, n) -> (m, n)."""
    return torch.ops.mkldnn._linear_pointwise(left, right.mT, None, "relu", [], "")


def linear(x: Tensor, layer: nn.Linear, relu: bool) -> Tensor:
    """The layer on (..., inputs), and ReLU where asked -> (..., outputs)."""
    name = "relu" if relu else "none"
    return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, name, [], "")


def _parts(conv: nn.Conv2d) -> tuple[object, ...]:
    """A convolution as the operators take it."""
    return conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups


def convolve(x: Tensor, conv: nn.Conv2d, slope: float) -> Tensor:
    """The convolution and LeakyReLU of that slope."""
    return torch.ops.mkldnn._convolution_pointwise(x, *_parts(conv), "leaky_relu", [slope], "")


def convolve_add_to(total: Tensor, conv: nn.Conv2d, x: Tensor, relu: bool = False) -> Tensor:
    """total += the convolution of x, and ReLU where asked; returns total."""
    return torch.ops.mkldnn._convolution_pointwise_.binary(
        total, x, *_parts(conv), "add", 1.0, "relu" if relu else None, [], None
    )
