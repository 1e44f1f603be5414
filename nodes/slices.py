"""Big operations of the CPU in slices, so that an interruption takes effect within a fraction of a second.

ComfyUI can stop a node only where the node asks. A single convolution of a large tile keeps two CPU cores busy for more
than a second; cut into bands of rows, with a question before each, it gives the same result in the same time.

Letters: B pictures, C channels, H x W pixels, N positions, D channels of a query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

LIMIT = 1_000_000_000  # multiplications at a time: 10 to 30 ms on two cores
NUMBERS = 2**23  # numbers that are only copied or changed one by one: about as long
Size = int | tuple[int, ...]
# What scsnet/onednn.py calls; None where PyTorch was built without it.
_FUSED = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
_ADDED = getattr(getattr(torch.ops.mkldnn, "_convolution_pointwise_", None), "binary", None)
# Every output row of these depends on the same row of the input alone.
_BY_ROW = {F.relu, F.leaky_relu, Tensor.nan_to_num, Tensor.clamp}


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
            if func is _FUSED:
                return fused(self.ask, func, *args, **kwargs)
            if func is _ADDED:
                return added(self.ask, func, *args, **kwargs)
            if func is F.scaled_dot_product_attention:
                return attention(self.ask, *args, **kwargs)
            if first.ndim == 4 and func in _BY_ROW and first.numel() > NUMBERS:
                return by_row(self.ask, func, *args, **kwargs)
            if func is F.interpolate and _enlarges(*args, **kwargs):
                return enlarged(self.ask, first, int(kwargs["scale_factor"]))
            if func is Tensor.contiguous and first.ndim == 4 and first.numel() > NUMBERS:
                return contiguous(self.ask, *args, **kwargs)
        if func is torch.cat and isinstance(first, (list, tuple)) and _stacks(*args, **kwargs):
            return stacked(self.ask, first)
        return func(*args, **kwargs)


def _pair(value: Size) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _layout(*tensors: Tensor) -> torch.memory_format:
    """As PyTorch chooses it: channels last where any of the inputs is, and unambiguously so."""
    last = any(
        t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous()
        for t in tensors
    )
    return torch.channels_last if last else torch.contiguous_format


def _bands(rows: int, numbers: int) -> range:
    """Where bands of at most NUMBERS out of `numbers` in all begin; its step is their height."""
    return range(0, rows, max(1, rows * NUMBERS // numbers))


def by_row(
    ask: Callable[[], None], func: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    """func(x (B, C, H, W), ...) of the same shape, in bands of rows."""
    if kwargs.get("inplace"):
        return func(x, *args, **kwargs)
    result = torch.empty_like(x)
    bands = _bands(x.shape[2], x.numel())
    for top in bands:
        ask()
        rows = (slice(None), slice(None), slice(top, top + bands.step))
        result[rows] = func(x[rows], *args, **kwargs)
    return result


def contiguous(
    ask: Callable[[], None], x: Tensor, memory_format: torch.memory_format = torch.contiguous_format
) -> Tensor:
    """x.contiguous(...) of (B, C, H, W), in bands of rows."""
    if x.is_contiguous(memory_format=memory_format):
        return x
    result = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format)
    _copy(ask, x, result)
    return result


def _copy(ask: Callable[[], None], x: Tensor, result: Tensor) -> None:
    bands = _bands(x.shape[2], x.numel())
    for top in bands:
        ask()
        result[:, :, top : top + bands.step] = x[:, :, top : top + bands.step]


def _stacks(parts: Sequence[Tensor], dim: int = 0) -> bool:
    """Whether torch.cat is asked for the channels of big planes of the CPU, of one type."""
    if dim != 1 or {(p.ndim, p.device.type, p.dtype) for p in parts} != {
        (4, "cpu", parts[0].dtype)
    }:
        return False
    return sum(p.numel() for p in parts) > NUMBERS


def stacked(ask: Callable[[], None], parts: Sequence[Tensor]) -> Tensor:
    """torch.cat(parts, dim=1) of (B, C, H, W), in bands of rows."""
    batch, _, height, width = parts[0].shape
    result = torch.empty(
        (batch, sum(p.shape[1] for p in parts), height, width),
        dtype=parts[0].dtype,
        memory_format=_layout(*parts),
    )
    start = 0
    for part in parts:
        _copy(ask, part, result[:, start : start + part.shape[1]])
        start += part.shape[1]
    return result


def _enlarges(x: Tensor, *args: Any, **options: Any) -> bool:
    """Whether F.interpolate is asked for a bilinear enlargement by a whole number to a big result."""
    given = {name: value for name, value in options.items() if value not in (None, False)}
    factor = given.pop("scale_factor", None)
    if args or given != {"mode": "bilinear"}:
        return False
    return isinstance(factor, int) and x.numel() * factor**2 > NUMBERS


def enlarged(ask: Callable[[], None], x: Tensor, factor: int) -> Tensor:
    """F.interpolate(x (B, C, H, W), scale_factor=factor, mode="bilinear"), in bands of input rows."""
    batch, channels, height, width = x.shape
    shape = (batch, channels, factor * height, factor * width)
    result = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_layout(x))
    bands = _bands(height, result.numel())
    for top in bands:
        ask()
        bottom = min(height, top + bands.step)
        above, below = (
            min(top, 1),
            min(height - bottom, 1),
        )  # neighbours, for the border of the band
        part = F.interpolate(
            x[:, :, top - above : bottom + below], scale_factor=factor, mode="bilinear"
        )
        rows = slice(factor * above, part.shape[2] - factor * below)
        result[:, :, factor * top : factor * bottom] = part[:, :, rows]
    return result


def _convolution_bands(
    x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[tuple[int, int, int, int], Iterator[tuple[slice, Tensor]]]:
    """Shape of the result, and its rows in bands, each with the rows of x (B, C, H, W) that it takes."""
    taps, (down, across), (above, beside) = weight.shape[2], stride, padding
    rows = (x.shape[2] + 2 * above - taps) // down + 1
    columns = (x.shape[3] + 2 * beside - weight.shape[3]) // across + 1
    band = max(1, rows * LIMIT // _convolution_cost(x, weight))

    def parts() -> Iterator[tuple[slice, Tensor]]:
        for top in range(0, rows, band):
            bottom = min(rows, top + band)
            first, last = top * down - above, (bottom - 1) * down - above + taps
            part = x[:, :, max(0, first) : min(x.shape[2], last)]
            missing = (max(0, -first), max(0, last - x.shape[2]))
            yield slice(top, bottom), F.pad(part, (0, 0, *missing)) if any(missing) else part

    return (x.shape[0], weight.shape[0], rows, columns), parts()


def _convolution_cost(x: Tensor, weight: Tensor) -> int:
    return x.shape[0] * x.shape[2] * x.shape[3] * weight.numel()


def _whole(x: Tensor, weight: Tensor, padding: Size | str, dilation: Size, groups: int) -> bool:
    """Whether a convolution stays in one piece: a small one, or of a kind that this network has not."""
    known = not isinstance(padding, str) and _pair(dilation) == (1, 1) and groups == 1
    return not known or _convolution_cost(x, weight) <= LIMIT


def conv2d(
    ask: Callable[[], None], x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1,
    padding: Size | str = 0, dilation: Size = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """F.conv2d(x (B, C, H, W), ...), in bands of output rows where it is big."""
    if _whole(x, weight, padding, dilation, groups):
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    assert not isinstance(padding, str)
    shape, bands = _convolution_bands(x, weight, _pair(stride), _pair(padding))
    layout = _layout(x, weight)
    result = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    for rows, part in bands:
        ask()
        result[:, :, rows] = F.conv2d(part, weight, bias, stride, (0, _pair(padding)[1]))
    return result


def fused(
    ask: Callable[[], None], func: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, padding: Size,
    stride: Size, dilation: Size, groups: int, *after: Any,
) -> Tensor:  # fmt: skip
    """oneDNN's convolution and what comes `after` it, in bands of output rows where it is big."""
    if _whole(x, weight, padding, dilation, groups):
        return func(x, weight, bias, padding, stride, dilation, groups, *after)
    shape, bands = _convolution_bands(x, weight, _pair(stride), _pair(padding))
    layout = torch.channels_last  # oneDNN's own choice
    result = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    sides = (0, _pair(padding)[1])
    for rows, part in bands:
        ask()
        result[:, :, rows] = func(part, weight, bias, sides, stride, dilation, groups, *after)
    return result


def added(
    ask: Callable[[], None], func: Callable[..., Tensor], total: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None,
    padding: Size, stride: Size, dilation: Size, groups: int, *after: Any,
) -> Tensor:  # fmt: skip
    """oneDNN's convolution of x, added to `total` in place, in bands of its rows where it is big."""
    if _whole(x, weight, padding, dilation, groups):
        return func(total, x, weight, bias, padding, stride, dilation, groups, *after)
    _, bands = _convolution_bands(x, weight, _pair(stride), _pair(padding))
    sides = (0, _pair(padding)[1])
    for rows, part in bands:
        ask()
        func(total[:, :, rows], part, weight, bias, sides, stride, dilation, groups, *after)
    return total


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
