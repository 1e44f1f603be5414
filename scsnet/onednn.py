"""Convolutions and linear layers on a CPU fused with bias, activation and sum (oneDNN).

Eager PyTorch applies bias, ReLU and sums in separate passes over memory, which took more than half of CPM's time on a CPU
with AMX. oneDNN's operators apply them in registers. They are private to PyTorch, which calls them in compiled networks.

For inference on x86, in float32, or in bfloat16 where the CPU multiplies it in hardware. Callers check `usable`, and use
PyTorch's operators otherwise.
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


def _list_dtypes() -> frozenset[torch.dtype]:
    """Return the dtypes that the operators support on this CPU; none if this PyTorch lacks them."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return frozenset()  # measured on x86 only
    if not torch.backends.mkldnn.is_available():
        return frozenset()
    if not all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS):
        return frozenset()
    bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return frozenset({torch.float32, torch.bfloat16} if bfloat16 else {torch.float32})


FORMATS = _list_dtypes()


@cache
def _works() -> bool:
    """Compare the private operators with PyTorch's public ones, once: they may change between releases."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # seeds the CPU only
        x = torch.randn(1, 4, 5, 5)
        conv, layer = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 4)
    conv.requires_grad_(False)
    layer.requires_grad_(False)
    rows = x[0, 0, :, :4].contiguous()
    try:
        results = (
            convolve(x, conv, 0.2),
            convolve_add_to(x.clone(), conv, x, relu=True),
            linear(rows, layer.weight, layer.bias, relu=True),
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
    return all(torch.allclose(a, b, atol=1e-4) for a, b in zip(results, expected, strict=True))


def usable(x: Tensor, weight: Tensor) -> bool:
    """Return whether the functions below can apply a layer with `weight` to x: device, dtype, no gradients or autocast."""
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
    """Compute ReLU(left @ right): (m, k), (k, n) -> (m, n)."""
    return torch.ops.mkldnn._linear_pointwise(left, right.mT, None, "relu", [], "")


def linear(x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
    """Apply the layer, then ReLU if `relu`: (..., inputs) -> (..., outputs)."""
    name = "relu" if relu else "none"
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], "")


def _arguments(conv: nn.Conv2d) -> tuple[object, ...]:
    """Return weight, bias and geometry of a convolution, in the order of the operators' arguments."""
    return conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups


def convolve(x: Tensor, conv: nn.Conv2d, slope: float) -> Tensor:
    """Apply the convolution, then LeakyReLU with `slope`."""
    return torch.ops.mkldnn._convolution_pointwise(x, *_arguments(conv), "leaky_relu", [slope], "")


def convolve_add_to(total: Tensor, conv: nn.Conv2d, x: Tensor, relu: bool = False) -> Tensor:
    """Add the convolution of x to `total` in place, then apply ReLU if `relu`; return `total`."""
    return torch.ops.mkldnn._convolution_pointwise_.binary(
        total, x, *_arguments(conv), "add", 1.0, "relu" if relu else None, [], None
    )
