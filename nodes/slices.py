"""Big operations of the CPU in slices, so that an interruption takes effect within a fraction of a second.

ComfyUI can stop a node only where the node asks. A single convolution of a large tile keeps two CPU cores busy for more
than a second; cut into bands of rows, with a question before each, it gives the same result in the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

LIMIT = 2_000_000_000  # multiplications at a time: about 0.05 s on two cores


class Interruptible(TorchFunctionMode):
    """Within it, `ask` is called before every operation, and before every slice of a big one; it may raise."""

    def __init__(self, ask: Callable[[], None]) -> None:
        super().__init__()
        self.ask = ask

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.ask()
        kwargs = kwargs or {}
        first = args[0] if args else None
        if isinstance(first, Tensor) and first.device.type == "cpu":
            if func is F.conv2d:
                return conv2d(self.ask, *args, **kwargs)
            if func is F.scaled_dot_product_attention:
                return attention(self.ask, *args, **kwargs)
        return func(*args, **kwargs)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def conv2d(
    ask: Callable[[], None], x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0, dilation: int | tuple[int, ...] = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """F.conv2d(x (B, C, H, W), ...), in bands of output rows where it is big."""
    cost = x.shape[0] * x.shape[2] * x.shape[3] * weight.numel()
    if cost <= LIMIT or isinstance(padding, str) or _pair(dilation) != (1, 1) or groups != 1:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    (down, across), (above, beside) = _pair(stride), _pair(padding)
    taps = weight.shape[2]
    rows = (x.shape[2] + 2 * above - taps) // down + 1
    columns = (x.shape[3] + 2 * beside - weight.shape[3]) // across + 1
    band = max(1, rows * LIMIT // cost)
    layout = (
        torch.channels_last
        if x.is_contiguous(memory_format=torch.channels_last)
        else torch.contiguous_format
    )
    shape = (x.shape[0], weight.shape[0], rows, columns)
    result = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    for top in range(0, rows, band):
        ask()
        bottom = min(rows, top + band)
        first, last = (
            top * down - above,
            (bottom - 1) * down - above + taps,
        )  # input rows that these outputs see
        part = x[:, :, max(0, first) : min(x.shape[2], last)]
        missing = (max(0, -first), max(0, last - x.shape[2]))
        if any(missing):
            part = F.pad(part, (0, 0, *missing))
        result[:, :, top:bottom] = F.conv2d(part, weight, bias, (down, across), (0, beside))
    return result


def attention(
    ask: Callable[[], None], query: Tensor, key: Tensor, value: Tensor, **options: Any
) -> Tensor:
    """F.scaled_dot_product_attention of (..., N, D), a few of the queries at a time where it is big."""
    cost = query[..., 0].numel() * key.shape[-2] * (key.shape[-1] + value.shape[-1])
    if cost <= LIMIT or options.keys() - {"scale"}:
        return F.scaled_dot_product_attention(query, key, value, **options)
    count = max(1, query.shape[-2] * LIMIT // cost)
    parts = []
    for start in range(0, query.shape[-2], count):
        ask()
        parts.append(
            F.scaled_dot_product_attention(
                query[..., start : start + count, :], key, value, **options
            )
        )
    return torch.cat(parts, dim=-2)
