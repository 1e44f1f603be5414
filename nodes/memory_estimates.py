"""Estimates of the memory that SCSNet takes, for ComfyUI's memory management.

The factors are measured; tests/nodes/test_memory_estimates.py compares them with the real peak.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from ..scsnet.cpm import BLOCK
from ..scsnet.model import KEPT_TEXTURE, TILE_KEPT
from . import host

if TYPE_CHECKING:
    from .types import Lab, Model

PIXELS_AT_ONCE = 2**20  # source pixels of the pictures that a GPU processes together

# Feature maps of the network's width and type that are alive at the peak.
# Per pixel of the colour branch: convolutions at full size, attention at a quarter.
_WORKING = 12
_PRIOR = 2**22  # numbers: the semantic prior, whatever the picture's size
_TILE = 5  # per pixel of a tile of the texture encoder
_CPM = 16  # per source pixel of a tile, and per output pixel of a block: 128 and 256 channels, and their copies
_BLOCK = BLOCK[0] * BLOCK[1]  # output pixels that CPM maps at a time
# Bytes per pixel of the picture, whatever the type: luminance, RGB and LAB while they are converted.
_PLANES = 4 * 20


def _channel(model: Model) -> int:
    """Return the bytes of one pixel of a feature map of the network's width."""
    return model.config.width * model.dtype.itemsize


def image_bytes(count: int, size: tuple[int, int], alpha: bool) -> int:
    """Return the bytes of an IMAGE."""
    return count * size[0] * size[1] * (4 if alpha else 3) * host.image_dtype().itemsize


def _tile_pixels(size: tuple[int, int], tile: int, margin: int) -> int:
    return min(size[0], tile + 2 * margin) * min(size[1], tile + 2 * margin)


def colorize_bytes(model: Model, size: tuple[int, int], working_size: int, at_once: int) -> float:
    """Return the bytes beside the weights while `at_once` pictures of `size` are colorized."""
    pixels, channel = size[0] * size[1], _channel(model)
    working = min(pixels, working_size**2)
    margin = 2 * model.config.depth + 1
    colour = working * _WORKING * channel
    if model.config.prior != "none":
        colour += _PRIOR * model.dtype.itemsize
    texture = _tile_pixels(size, host.TILE, margin) * _TILE * channel
    kept = min(pixels * channel, KEPT_TEXTURE)  # F_tex
    return at_once * (max(colour, texture, _decode(model, size)) + kept + pixels * _PLANES)


def upscale_bytes(bundle: Lab) -> float:
    """Return the bytes beside the weights while a bundle is rendered, one chunk at a time."""
    at_once = bundle.features[0].luminance.shape[0]
    pixels = bundle.size[0] * bundle.size[1]
    bands = sqrt(pixels) * _PLANES
    return bundle.features[0].nbytes + at_once * (_decode(bundle.model, bundle.size) + bands)


def _decode(model: Model, size: tuple[int, int]) -> float:
    kept = size[0] * size[1] * _channel(model) <= KEPT_TEXTURE
    side = TILE_KEPT if kept and host.compute_device().type == "cpu" else host.TILE
    return (_tile_pixels(size, side, 1) + _BLOCK) * _CPM * _channel(model)
