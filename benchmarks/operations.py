"""Floating-point operations and bytes of encode and decode, counted from the config.

What the method needs, not what a library happens to run: a product of numbers and its sum are two operations,
and every layer reads its input and weights once and writes its output once. CPM counts as one layer,
since nothing between its linear layers has to be in memory; activations, interpolation, pooling and the
folding of weights are left out of the operations, and so is the overlap of tiles (pictures up to 512 have none).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from scsnet import SCSNetConfig
from scsnet.attention import LEVELS
from scsnet.resample import STRIDE, compute_working_shape


class Work(NamedTuple):
    """Operations and values of one or several layers."""

    name: str
    operations: int
    values: int
    """Values read and written in the dtype of the weights."""
    planes: int = 0
    """Values read and written in float32."""

    def bytes(self, itemsize: int) -> int:
        """Memory traffic where the weights' format takes `itemsize` bytes."""
        return self.values * itemsize + self.planes * 4


def together(name: str, parts: Iterator[Work]) -> Work:
    """Return the sum."""
    sums = (sum(column) for column in zip(*(part[1:] for part in parts), strict=True))
    return Work(name, *sums)


def convolution(
    name: str, inputs: int, outputs: int, pixels: int, kernel: int = 3, stride: int = 1
) -> Work:
    """Count a square convolution with bias and `pixels` output pixels."""
    weights = outputs * (inputs * kernel**2 + 1)
    operations = 2 * pixels * outputs * inputs * kernel**2
    return Work(name, operations, pixels * (inputs * stride**2 + outputs) + weights)


def level(width: int, height: int, across: int) -> Iterator[Work]:
    """Count VCAttn of a picture to itself at one level of height x across positions."""
    positions, channels = height * across, 4 * width
    for name in ("pre_source", "pre_reference"):
        yield convolution(name, channels, channels, positions)
    for name, outputs in (("query", width), ("key", width), ("value", channels)):
        yield convolution(name, channels, outputs, positions, kernel=1)
    read_and_written = positions * (2 * width + 2 * channels)
    yield Work("attention", 2 * positions**2 * (width + channels), read_and_written)
    yield convolution("valve", 2 * channels, 2, positions, kernel=1)


def texture(config: SCSNetConfig, pixels: int) -> Iterator[Work]:
    """Count psi_E."""
    yield convolution("initial", 1, config.width, pixels)
    for _ in range(2 * config.depth):
        yield convolution("block", config.width, config.width, pixels)


def colour(config: SCSNetConfig, size: tuple[int, int], working_size: int) -> Iterator[Work]:
    """Count phi without references."""
    height, across = (
        -(-n // STRIDE) for n in compute_working_shape(*size, working_size)
    )  # quarter size
    quarter, half, full = (height * across * n for n in (1, 4, 16))
    w = config.width
    yield convolution("initial", 1, w, full)
    for inputs, outputs, pixels, stride in (
        (w, w, full, 1),
        (w, w, full, 1),
        (w, w, half, 2),
        (w, 2 * w, half, 1),
        (2 * w, 2 * w, half, 1),
        (2 * w, 2 * w, quarter, 2),
        (2 * w, 4 * w, quarter, 1),
        (4 * w, 4 * w, quarter, 1),
    ):
        yield convolution("encoder", inputs, outputs, pixels, stride=stride)
    for _ in range(3):
        yield convolution("extractor", 4 * w, 4 * w, quarter)
    for factor in LEVELS:
        yield from level(w, -(-height // factor), -(-across // factor))
    yield convolution("post", 4 * w * len(LEVELS), 4 * w, quarter, kernel=1)
    for inputs, outputs, pixels in (
        (4 * w, 4 * w, half),
        (4 * w, 2 * w, half),
        (2 * w, 2 * w, full),
        (2 * w, w, full),
    ):
        yield convolution("decoder", inputs, outputs, pixels)


def encode(config: SCSNetConfig, size: tuple[int, int], working_size: int | None = None) -> Work:
    """Count `SCSNet.encode` of one picture of `size`, automatic mode."""
    bound = config.working_size if working_size is None else working_size

    def parts() -> Iterator[Work]:
        yield from texture(config, size[0] * size[1])
        yield from colour(config, size, bound)

    return together("encode", parts())


def decode(config: SCSNetConfig, source: tuple[int, int], size: tuple[int, int]) -> Work:
    """Count `SCSNet.decode` of one picture of `source` to `size`, by CPM."""
    if config.head != "cpm":
        raise ValueError(f'expected a network with head="cpm", got {config.head!r}')
    hidden, pixels = 4 * config.width, size[0] * size[1]
    inputs = source[0] * source[1]
    weights = hidden * 2 + 2 * hidden * (hidden + 1) + 3 * (hidden + 1)
    linears = Work("CPM", 2 * pixels * (2 * hidden**2 + 3 * hidden), inputs * hidden + weights)

    def parts() -> Iterator[Work]:
        yield convolution("folded", 2 * config.width, hidden, inputs)
        yield linears._replace(planes=inputs + 3 * pixels)  # L of the source, LAB of the result

    return together("decode", parts())
