"""CPM as one Triton kernel: from the folded features to three planes, without intermediate results in memory.

It computes `CPM.map`, keeping the 256 channels per output pixel on the chip. A program computes a rectangle of P output
pixels:

    first layer        features of four source pixels, interpolated in float32, and Z; ReLU
    second, 256 x 256  a block of its inputs at a time, each interpolated when it is needed; ReLU
    third, 256 x 256   a block of its outputs at a time; ReLU
    fourth, 3 x 256    accumulated into the planes per block

So one block of 256 x `Plan.part` weights is on the chip at a time, and one accumulator (P, 256) in registers, in float32.
(Fusing the second and third layer in one loop, as in attention kernels, would also keep the inputs: compiled for compute
capability 8, that spilled 14 KB of registers per thread. This spills none.)

Imported only if `scsnet.cpm.dispatch` selects it. Tested on a CPU in Triton's interpreter, and compiled for GPUs of
compute capability 8 to 12; it has not been run on a GPU, and its speed is unmeasured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError
from triton.runtime.errors import OutOfResources

from .grid import Axis, build_axis
from .parameters import Linear, Parameters

__all__ = ["Plan", "TritonError", "find_fastest", "list_plans", "map_pixels"]


class Plan(NamedTuple):
    """Block sizes of a launch; they do not change the result."""

    down: int
    """Output rows of a program; a power of two, as `across` and `part`."""
    across: int
    """Output columns of a program; down x across is at least 16, the minimum of tl.dot."""
    part: int
    """Channels of a hidden layer per block, at least 16."""
    warps: int
    stages: int
    """Pipeline stages: blocks of weights loaded ahead."""


def list_plans(capability: tuple[int, int]) -> Sequence[Plan]:
    """Return candidate plans for a compute capability; none of them spills registers.

    Those for 9 and 10 (data centre GPUs) use the larger shared memory there; the others need at most 50 KiB.
    """
    if capability[0] in (9, 10):
        return Plan(8, 16, 64, 8, 2), Plan(8, 16, 32, 8, 3), Plan(8, 8, 64, 4, 2)
    return Plan(8, 8, 32, 8, 2), Plan(8, 8, 16, 4, 2), Plan(4, 8, 32, 4, 2)


@triton.jit
def _rectified(x):
    return tl.where(x < 0, 0.0, x)  # keeps NaN, which a maximum would hide


@triton.jit
def _product(a, b, total, PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    if WIDEN:  # Triton's interpreter multiplies the bits of bfloat16; in float32 products are exact
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def _cpm(
    hidden,  # (B, H, W, C); pixels lie side by side, rows and pictures need not
    row_source,  # (n, 2) int64
    row_weight,  # (n, 2) float32
    row_relative,  # (n,) float32
    column_source,  # the same of m columns
    column_weight,
    column_relative,
    coordinates,  # (C, 2), rows `coordinates_stride` apart: columns of Z in the first layer, x before y
    weight1,  # (C, C), out before in
    bias1,
    weight2,
    bias2,
    weight3,  # (3, C)
    bias3,
    out,  # (B, 3, n, m) float32
    n,
    m,
    picture_stride,
    row_stride,
    coordinates_stride,
    C: tl.constexpr,
    DOWN: tl.constexpr,
    ACROSS: tl.constexpr,
    PART: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    picture = tl.program_id(1).to(tl.int64)
    tiles = tl.cdiv(m, ACROSS)
    pixel = tl.arange(0, DOWN * ACROSS)  # P, row by row of the rectangle
    i = (tl.program_id(0) // tiles) * DOWN + pixel // ACROSS
    j = (tl.program_id(0) % tiles) * ACROSS + pixel % ACROSS
    down, across = i < n, j < m
    c = tl.arange(0, C)
    dtype = hidden.dtype.element_ty

    # The four source pixels around each, and their shares.
    top = picture * picture_stride + tl.load(row_source + 2 * i, mask=down, other=0) * row_stride
    bottom = (
        picture * picture_stride + tl.load(row_source + 2 * i + 1, mask=down, other=0) * row_stride
    )
    left = tl.load(column_source + 2 * j, mask=across, other=0) * C
    right = tl.load(column_source + 2 * j + 1, mask=across, other=0) * C
    above = tl.load(row_weight + 2 * i, mask=down, other=0.0)
    below = tl.load(row_weight + 2 * i + 1, mask=down, other=0.0)
    before = tl.load(column_weight + 2 * j, mask=across, other=0.0)
    after = tl.load(column_weight + 2 * j + 1, mask=across, other=0.0)
    at00, at01, at10, at11 = top + left, top + right, bottom + left, bottom + right
    w00, w01, w10, w11 = above * before, above * after, below * before, below * after
    zx = tl.load(column_relative + j, mask=across, other=0.0)
    zy = tl.load(row_relative + i, mask=down, other=0.0)

    # Second layer, a block of its inputs at a time, interpolated when needed.
    wide = tl.zeros((DOWN * ACROSS, C), tl.float32)
    for first in range(0, C, PART):
        k = first + tl.arange(0, PART)
        x = zx[:, None] * tl.load(coordinates + k * coordinates_stride).to(tl.float32)[None, :]
        x += zy[:, None] * tl.load(coordinates + k * coordinates_stride + 1).to(tl.float32)[None, :]
        x += tl.load(hidden + (at00[:, None] + k[None, :])).to(tl.float32) * w00[:, None]
        x += tl.load(hidden + (at01[:, None] + k[None, :])).to(tl.float32) * w01[:, None]
        x += tl.load(hidden + (at10[:, None] + k[None, :])).to(tl.float32) * w10[:, None]
        x += tl.load(hidden + (at11[:, None] + k[None, :])).to(tl.float32) * w11[:, None]
        block = tl.load(weight1 + c[None, :] * C + k[:, None])  # (PART, C)
        wide = _product(_rectified(x).to(dtype), block, wide, PRECISION, WIDEN)
    wide += tl.load(bias1 + c).to(tl.float32)[None, :]
    activation = _rectified(wide).to(dtype)  # (P, C)

    # Third layer, a block of its outputs at a time, accumulated into the three planes. The product with the 3 x C
    # weights is padded to 16 columns, the minimum of tl.dot.
    plane = tl.arange(0, 16)
    three = plane < 3
    lab = tl.zeros((DOWN * ACROSS, 16), tl.float32)
    for first in range(0, C, PART):
        k = first + tl.arange(0, PART)
        block = tl.load(weight2 + k[None, :] * C + c[:, None])  # (C, PART)
        part = tl.zeros((DOWN * ACROSS, PART), tl.float32)
        part = _product(activation, block, part, PRECISION, WIDEN)
        part += tl.load(bias2 + k).to(tl.float32)[None, :]
        block = tl.load(weight3 + plane[None, :] * C + k[:, None], mask=three[None, :], other=0.0)
        lab = _product(_rectified(part).to(dtype), block, lab, PRECISION, WIDEN)
    lab += tl.load(bias3 + plane, mask=three, other=0.0).to(tl.float32)[None, :]
    to = (picture * 3 + plane[None, :]) * n * m + i.to(tl.int64)[:, None] * m + j[:, None]
    tl.store(out + to, lab, mask=(down & across)[:, None] & three[None, :])


def map_pixels(
    parameters: Parameters, hidden: Tensor, rows: Axis, columns: Axis, plan: Plan
) -> Tensor:
    """Map the grid rows x columns of `hidden` (B, H, W, C) to planes (B, 3, n, m), float32.

    `hidden` and the weights have one dtype: bfloat16, float16 or float32 (without tensor cores); C is a power of two, 16
    to 256. Not differentiable.
    """
    batch, _, _, channels = hidden.shape
    assert hidden.stride(3) == 1, hidden.stride()
    assert hidden.shape[2] == 1 or hidden.stride(2) == channels, hidden.stride()
    n, m = rows.relative.shape[0], columns.relative.shape[0]
    coordinates = parameters.coordinates
    out = torch.empty(batch, 3, n, m, device=hidden.device)
    programs = (triton.cdiv(n, plan.down) * triton.cdiv(m, plan.across), batch)
    with torch.cuda.device_of(hidden):  # does nothing for a tensor of the CPU
        _cpm[programs](
            hidden,
            *(rows.taps.source, rows.taps.weight, rows.relative),
            *(columns.taps.source, columns.taps.weight, columns.relative),
            coordinates,
            *(tensor for layer in parameters.layers for tensor in layer),
            out,
            *(n, m),
            *(hidden.stride(0), hidden.stride(1), coordinates.stride(0)),
            C=channels,
            DOWN=plan.down,
            ACROSS=plan.across,
            PART=min(plan.part, channels),
            PRECISION="ieee" if hidden.dtype == torch.float32 else "tf32",
            WIDEN=not hidden.is_cuda,
            num_warps=plan.warps,
            num_stages=plan.stages,
        )
    return out


def milliseconds(run: Callable[[], object]) -> float:
    """Return the milliseconds of five runs on the current GPU, after one that compiles."""
    run()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(5):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


@torch.inference_mode()
def find_fastest(
    device: torch.device,
    dtype: torch.dtype,
    channels: int,
    candidates: Sequence[Plan],
    side: int = 128,
    timer: Callable[[Callable[[], object]], float] = milliseconds,
) -> Plan:
    """Return the fastest candidate at a magnification of 4 on side x side features.

    All of them are compiled, which takes seconds until Triton has them in its cache on disk. Raises OutOfResources if
    none fits the device, and the errors of Triton's compiler.
    """
    widths = (channels, channels, 3)
    zeros = partial(torch.zeros, device=device, dtype=dtype)
    layers = tuple(Linear(zeros(n, channels), zeros(n)) for n in widths)
    parameters = Parameters(zeros(channels, 2), layers)
    hidden = zeros(1, side, side, channels)
    grid = build_axis(side, 4 * side, 0, 4 * side, "centre", device)
    times: dict[Plan, float] = {}
    failure: OutOfResources | None = None
    with torch.cuda.device_of(hidden):
        for plan in candidates:
            try:
                times[plan] = timer(partial(map_pixels, parameters, hidden, grid, grid, plan))
            except OutOfResources as error:
                failure = error
    if not times:
        assert failure is not None
        raise failure
    return min(times, key=lambda plan: times[plan])
