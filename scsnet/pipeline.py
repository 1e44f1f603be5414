"""From sRGB pictures to sRGB pictures: colour conversion, sizes, device and dtype around the network.

Pictures are sRGB planes (B, 3, H, W), or gray (B, 1, H, W), float in 0..1, on any device; they are converted to the
network's device and dtype. Inputs are never written to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil, isfinite, isqrt, sqrt
from types import EllipsisType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .color import denormalize_lab, lab_to_rgb, normalize_lab, rgb_to_lab, rgb_to_lightness
from .cpm import PixelShuffle
from .cpm.pixel_shuffle import FACTOR
from .features import Features, ReferenceFeatures
from .hints import spread_corrections
from .margins import find_margins
from .model import Progress, SCSNet, pair_masks
from .resample import (
    STRIDE,
    compute_working_shape,
    resample_bicubic,
    resize_marks,
    resize_masked,
    resize_smoothly,
)
from .texture import TILE
from .tiling import Window, crop, validate_window

MAX_SIDE = 100_000
MAX_PIXELS = 1_500_000_000
HELD_SIZE = 64  # pixels squared at which the colours of hints are held
SAME_LIGHTNESS = 2.0  # L*: mean difference below which a masked reference is the picture itself
_RANGE = (-0.5, 1.5)  # resampling overshoots 0..1; 0..255 and -1..1 are refused
_BAND = 2**22  # pixels converted to luminance at a time
_CELLS = 512  # output pixels per side of a block when downscaling, before averaging


def output_size(
    height: int,
    width: int,
    *,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    long_side: int | None = None,
    megapixels: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[int, int]:
    """Return (height, width) of the result, from exactly one of `scale`, `size`, `long_side` and `megapixels`.

    `scale` is any number above 0, `size` is (height, width), `megapixels` counts 1,000,000 pixels; all but `size` keep
    the aspect ratio. Raises ValueError for none or several of them, sizes below 1 x 1, and results of more than
    `max_pixels` (default: 1.5 gigapixels; give more to render a window).
    """
    ways = {"scale": scale, "size": size, "long_side": long_side, "megapixels": megapixels}
    given = {name: value for name, value in ways.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"expected one of {', '.join(ways)}, got {sorted(given) or 'none'}")
    if size is None:
        factor = scale
        if long_side is not None:
            factor = long_side / max(height, width)
        elif megapixels is not None:
            factor = sqrt(max(megapixels, 0.0) * 1e6 / (height * width))
        assert factor is not None
        if not (isfinite(factor) and factor > 0):
            name, value = next(iter(given.items()))
            raise ValueError(f"{name.replace('_', ' ')} must be above 0, got {value}")
        if max(height, width) * factor > 10 * MAX_SIDE:
            factor = 10 * MAX_SIDE / max(height, width)  # raises below, without overflow
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
    if min(size) < 1:
        raise ValueError(f"size must be at least 1 x 1, got {size[1]} x {size[0]}")
    if max(size) > MAX_SIDE or size[0] * size[1] > max_pixels:
        raise ValueError(
            f"a result of {size[1]} x {size[0]} pixels is too large: at most {MAX_SIDE} on a side "
            f"and {max_pixels // 10**6} megapixels"
        )
    return size


def validate_picture(rgb: Tensor, name: str, channels: tuple[int, ...] = (1, 3)) -> None:
    """Raise ValueError unless `rgb` is a float picture (B, C, H, W) with C in `channels` and values about 0..1.

    Values are read only in host memory: on a GPU that would stall the work queued before.
    """
    if rgb.ndim != 4 or rgb.shape[1] not in channels or 0 in rgb.shape:
        expected = " or ".join(str(c) for c in channels)
        raise ValueError(f"expected {name} (B, {expected}, H, W), got shape {tuple(rgb.shape)}")
    if not rgb.is_floating_point():
        raise ValueError(
            f"expected {name} of floats in 0..1, got {rgb.dtype}: divide by its maximum"
        )
    if rgb.device.type == "cpu":
        low, high = (value.item() for value in torch.aminmax(rgb))
        if not (_RANGE[0] <= low and high <= _RANGE[1]):  # also false for NaN
            raise ValueError(f"expected {name} with values in 0..1, got {low:g} to {high:g}")


def extract_luminance(net: SCSNet, rgb: Tensor) -> Tensor:
    """Return normalised L (B, 1, H, W) of a picture, float32, on the network's device.

    It is converted in bands of rows, so that no float32 copy of the whole picture is needed. Raises ValueError as
    `validate_picture`.
    """
    device = net.initial.weight.device
    validate_picture(rgb, "a picture")
    batch, _, height, width = rgb.shape
    whole = torch.empty(batch, 1, height, width, device=device)
    step = max(1, _BAND // (batch * width))
    for top in range(0, height, step):
        band = rgb[:, :, top : top + step].to(device, torch.float32)
        whole[:, :, top : top + step] = normalize_lab(rgb_to_lightness(band), net.config)
    return whole


@torch.inference_mode()
def encode_references(
    net: SCSNet,
    references: Sequence[Tensor],
    *,
    masks: Sequence[Tensor | None] = (),
    working_size: int | None = None,
) -> ReferenceFeatures:
    """Encode reference photos (1 or B, 3, Hr, Wr), sRGB in 0..1, of any sizes, for `encode_picture`.

    Each is reduced to about working_size² pixels (default: the network's). `masks`, one per reference, are None or
    (1 or B, 1, Hr, Wr): only what is 0.5 or more gives colours. Raises ValueError for pictures or masks of another shape,
    dtype or range, and for a mask that marks nothing.
    """
    device = net.initial.weight.device
    bound = net.config.working_size if working_size is None else working_size
    planes: list[Tensor] = []
    small_masks: list[Tensor | None] = []
    for rgb, mask in pair_masks(references, masks):
        validate_picture(rgb, "a reference", (3,))
        small, small_mask = resize_masked(rgb.to(device, torch.float32), mask, bound)
        planes.append(normalize_lab(rgb_to_lab(small.clamp(0, 1)), net.config))
        small_masks.append(small_mask)
    return net.encode_reference(planes, bound, small_masks)


@torch.inference_mode()
def encode_picture(
    net: SCSNet,
    rgb: Tensor,
    references: Sequence[Tensor] | ReferenceFeatures = (),
    *,
    reference_masks: Sequence[Tensor | None] = (),
    working_size: int | None = None,
    inside: Window | Literal["auto"] | None = "auto",
    tile: int = TILE,
    progress: Progress | None = None,
) -> Features:
    """Encode a picture, of which only the luminance is used, with its references, for `render`.

    References of batch size 1 serve every picture of the batch, of batch size B one each; `reference_masks` are the `masks`
    of `encode_references`. `working_size` is the side of the square that the colour branch sees as many pixels of (default:
    the size the weights were trained at). `inside` is the window of the picture that the colour branch sees; the rest stays
    without colours. "auto" leaves out the even margins of a scan, see `find_margins`, which waits for a GPU; None is the
    whole picture. Raises ValueError for pictures of another shape, dtype or range.
    """
    luminance = extract_luminance(net, rgb)
    if isinstance(references, ReferenceFeatures):
        encoded: ReferenceFeatures | None = references
    else:
        encoded = (
            encode_references(net, references, masks=reference_masks, working_size=working_size)
            if references
            else None
        )
    return encode_luminance(
        net,
        luminance,
        encoded,
        working_size=working_size,
        inside=inside,
        tile=tile,
        progress=progress,
    )


@torch.inference_mode()
def encode_luminance(
    net: SCSNet,
    luminance: Tensor,
    references: ReferenceFeatures | None = None,
    *,
    working_size: int | None = None,
    inside: Window | Literal["auto"] | None = "auto",
    tile: int = TILE,
    progress: Progress | None = None,
) -> Features:
    """Encode normalised L (B, 1, H, W) of `extract_luminance`; the options are those of `encode_picture`."""
    if inside == "auto":
        inside = find_margins(luminance, net.config)
    features = net.encode(
        luminance,
        references,
        working_size=working_size,
        inside=inside,
        tile=tile,
        progress=progress,
    )
    return _hold_marked_colors(net, features)


def _hold_marked_colors(net: SCSNet, features: Features) -> Features:
    """Return features whose colours are those of the marked places of references that are the picture itself.

    So are hints: the picture with colours painted on it, and a mask of these. A masked reference counts as the picture
    itself if its L* is the same but for `SAME_LIGHTNESS` on average. Other references change nothing; of several that mark
    a place the last one counts.
    """
    if features.reference is None or not features.reference.marks:
        return features
    size, config = features.size, net.config
    smallest = min(isqrt(lab.shape[2] * lab.shape[3]) for lab, _ in features.reference.marks)
    shape = compute_working_shape(*size, max(STRIDE, min(HELD_SIZE, smallest)))
    luminance = resize_smoothly(features.luminance, shape)
    inside = features.inside and _scale_window(features.inside, size, shape)
    seen = torch.zeros_like(luminance)
    crop(seen, inside or Window(0, 0, *shape), 2).fill_(1)
    lightness = denormalize_lab(luminance, config)
    target, mask = lightness.expand(-1, 3, -1, -1), torch.zeros_like(lightness)
    for planes, marks in features.reference.marks:
        lab, marked = resize_marks(planes, marks, shape)
        lab = denormalize_lab(lab, config)
        difference = (lab[:, :1] - lightness).abs().mean((1, 2, 3), keepdim=True)
        marked = marked * seen * (difference < SAME_LIGHTNESS)
        target, mask = torch.where(marked > 0, lab, target), torch.maximum(mask, marked)
    if not mask.any():
        return features
    small = replace(features, luminance=luminance, texture=None, reference=None, inside=inside)
    factor = FACTOR if isinstance(net.head, PixelShuffle) else 1
    decoded = net.decode(small, (factor * shape[0], factor * shape[1]))
    prediction = denormalize_lab(F.avg_pool2d(decoded, factor), config)
    shift = spread_corrections(prediction, target, mask) / config.chroma_scale
    return replace(features, color_shift=shift)


def _scale_window(window: Window, size: tuple[int, int], shape: tuple[int, int]) -> Window:
    """Return a window of a picture of `size`, rounded to pixels, in the picture reduced to `shape`."""
    top, bottom = (round(n * shape[0] / size[0]) for n in (window.top, window.bottom))
    left, right = (round(n * shape[1] / size[1]) for n in (window.left, window.right))
    top, left = min(top, shape[0] - 1), min(left, shape[1] - 1)
    return Window(top, left, max(1, bottom - top), max(1, right - left))


def _decode_blocks(
    net: SCSNet,
    features: Features,
    size: tuple[int, int],
    requested: Window,
    tile: int,
    progress: Progress | None,
) -> Iterator[tuple[Window, Tensor]]:
    """Yield the window `requested` block by block: (window of the output grid, LAB (B, 3, n, m)).

    CPM samples points of the picture, so below magnification 1 it would alias. There an integer multiple of the grid,
    at least as fine as the picture, is decoded, and every output pixel is the mean of its cell.
    """
    down, across = (
        max(1, ceil(source / result)) for source, result in zip(features.size, size, strict=True)
    )
    if down == across == 1:
        yield from net.decode_tiles(features, size, requested, tile=tile, progress=progress)
        return
    side = min(tile, _CELLS)
    blocks = list(requested.blocks(max(1, side // down), max(1, side // across)))
    for done, block in enumerate(blocks, 1):
        cells = Window(
            block.top * down, block.left * across, block.height * down, block.width * across
        )
        lab = net.decode(features, (size[0] * down, size[1] * across), cells)
        yield block, F.avg_pool2d(lab, (down, across))
        if progress is not None:
            progress(done, len(blocks))


@torch.inference_mode()
def render(
    net: SCSNet,
    features: Features,
    size: tuple[int, int],
    window: tuple[int, int, int, int] | None = None,
    *,
    strength: float = 1.0,
    luminance: Tensor | Literal["input"] | None = None,
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
    lab_out: Tensor | None = None,
    tile: int = TILE,
    progress: Progress | None = None,
) -> Tensor:
    """Decode features to sRGB (B, 3, Ht, Wt) at `size` = (Ht, Wt), or its `window` (top, left, height, width).

    `strength` multiplies a and b. `luminance` replaces the predicted L: with "input" by that of the encoded picture, or
    by a tensor L* (B or 1, 1, H, W) in 0..100 of any size, resampled bicubically. `dtype` is a float type (0..1) or
    uint8 (0..255). The result is written to `out` if given; the predicted LAB, before strength and luminance, to
    `lab_out`, a tensor of the same shape. Raises ValueError for a window outside the grid, a negative strength, or
    wrong shapes.
    """
    requested = validate_window(size, window)
    finish = _Finish(net, features, size, requested, strength, luminance, dtype, out)
    for block, planes in _decode_blocks(net, features, size, requested, tile, progress):
        lab = denormalize_lab(planes, net.config)
        if lab_out is not None:
            lab_out[locate_block(block, requested)] = lab
        finish.write(lab, block)
    return finish.out


@torch.inference_mode()
def decode_lab(
    net: SCSNet,
    features: Features,
    size: tuple[int, int],
    *,
    tile: int = TILE,
    progress: Progress | None = None,
) -> Tensor:
    """Decode features to LAB (B, 3, Ht, Wt), CIE units, float32, at `size` = (Ht, Wt), for `finish_lab`."""
    whole = validate_window(size, None)
    lab = torch.empty(features.luminance.shape[0], 3, *size, device=features.color.device)
    for block, planes in _decode_blocks(net, features, size, whole, tile, progress):
        lab[locate_block(block, whole)] = denormalize_lab(planes, net.config)
    return lab


@torch.inference_mode()
def finish_lab(
    net: SCSNet,
    features: Features,
    lab: Tensor,
    *,
    strength: float = 1.0,
    luminance: Tensor | Literal["input"] | None = None,
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
) -> Tensor:
    """Convert LAB (B, 3, Ht, Wt) of `decode_lab` to sRGB (B, 3, Ht, Wt); the options are those of `render`."""
    size = (lab.shape[2], lab.shape[3])
    whole = validate_window(size, None)
    finish = _Finish(net, features, size, whole, strength, luminance, dtype, out)
    for block in whole.blocks(_CELLS, _CELLS):
        finish.write(lab[locate_block(block, whole)].clone(), block)
    return finish.out


class _Finish:
    """The last steps of `render`, block by block: luminance, strength, sRGB."""

    def __init__(
        self,
        net: SCSNet,
        features: Features,
        size: tuple[int, int],
        requested: Window,
        strength: float,
        luminance: Tensor | Literal["input"] | None,
        dtype: torch.dtype,
        out: Tensor | None,
    ) -> None:
        if not (isfinite(strength) and strength >= 0):
            raise ValueError(f"strength must be 0 or more, got {strength}")
        self.config, self.size, self.requested = net.config, size, requested
        self.strength = strength
        device = features.color.device
        shape = (features.luminance.shape[0], 3, requested.height, requested.width)
        if out is None:
            out = torch.empty(shape, dtype=dtype, device=device)
        elif tuple(out.shape) != shape:
            raise ValueError(f"expected out of shape {shape}, got {tuple(out.shape)}")
        self.out = out
        self.luminance: Tensor | None = None
        if isinstance(luminance, Tensor):
            if (
                luminance.ndim != 4
                or luminance.shape[0] not in (1, shape[0])
                or luminance.shape[1] != 1
            ):
                expected = f"(1 or {shape[0]}, 1, H, W)"
                raise ValueError(
                    f"expected luminance {expected}, got shape {tuple(luminance.shape)}"
                )
            self.luminance = normalize_lab(luminance.to(device), net.config)
        elif luminance == "input":
            self.luminance = features.luminance
        elif luminance is not None:
            raise ValueError(f'luminance must be None, "input" or a tensor, got {luminance!r}')

    def write(self, lab: Tensor, block: Window) -> None:
        """Convert LAB (B, 3, n, m) of a block, which is overwritten, and write it to its place in `out`."""
        if self.luminance is not None:
            lightness = resample_bicubic(self.luminance, self.size, block)
            lab[:, :1] = denormalize_lab(lightness, self.config)
        lab[:, 1:] *= self.strength
        rgb = lab_to_rgb(lab, clip=True)
        if not self.out.dtype.is_floating_point:
            rgb = rgb.mul_(255).round_()
        self.out[locate_block(block, self.requested)] = rgb


def locate_block(block: Window, whole: Window) -> tuple[EllipsisType, slice, slice]:
    """Return the index of a block of a grid in a tensor (..., height, width) of its window `whole`."""
    top, left = block.top - whole.top, block.left - whole.left
    return ..., slice(top, top + block.height), slice(left, left + block.width)
