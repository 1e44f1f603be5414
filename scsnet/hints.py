"""Colour hints: a few colours at places of the gray photo, which the network carries to what belongs to them.

The photo with the hints painted on it becomes a masked reference of itself: see `reference_masks` of `encode_picture`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .color import lab_to_rgb, rgb_to_lab, rgb_to_lightness
from .resample import resize_to_working_size

PAINTED = 512  # pixels squared, to which a larger photo is reduced before hints are painted
NEAR = 0.25  # of the longer side: how far a hint's correction reaches
SIMILAR_AB = 8.0  # CIE units of the predicted colour: what counts as the same thing
SIMILAR_LIGHTNESS = 20.0
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_HINT = re.compile(
    rf"({_NUMBER})\s*,\s*({_NUMBER})\s*#([0-9a-f]{{6}}|[0-9a-f]{{3}})(?:\s+({_NUMBER})(?:\s+({_NUMBER}))?)?",
    re.IGNORECASE,
)


class Hint(NamedTuple):
    """A colour at a place of a photo."""

    x: float
    """0..1, from left to right."""
    y: float
    """0..1, from top to bottom."""
    color: tuple[int, int, int]
    """sRGB, 0..255; only its hue and chroma count, light and dark are the photo's."""
    radius: float = 0.02
    """Of the painted disc, as a fraction of the photo's shorter side."""
    strength: float = 1.0
    """Factor on the chroma."""


def parse_color(text: str) -> tuple[int, int, int]:
    """Return the sRGB values, 0..255, of "#rrggbb" or "#rgb". Raises ValueError."""
    digits = text.strip().removeprefix("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    if not re.fullmatch("[0-9a-fA-F]{6}", digits):
        raise ValueError(f"expected a colour as #6b4a2b, got {text.strip()!r}")
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def parse_hints(text: str) -> list[Hint]:
    """Return the hints of "x, y #rrggbb [radius [strength]]; ...", see `Hint`. Raises ValueError with an example."""
    hints = []
    for part in re.split(r"[;\n]", text):
        if not part.strip():
            continue
        match = _HINT.fullmatch(part.strip())
        if match is None:
            raise ValueError(
                f"cannot read the hint {part.strip()!r}; write x, y and a colour, for example 0.25, 0.4 #6b4a2b"
            )
        x, y = float(match[1]), float(match[2])
        values = [float(value) for value in match.groups()[3:] if value is not None]
        hints.append(Hint(x, y, parse_color(match[3]), *values))
    return hints


def validate_hint(hint: Hint) -> None:
    """Raise ValueError for a hint outside of the photo, without extent, or of negative strength."""
    if not (0 <= hint.x <= 1 and 0 <= hint.y <= 1):
        raise ValueError(f"expected a hint with x and y in 0..1, got {hint.x:g}, {hint.y:g}")
    if not 0 < hint.radius <= 1:
        raise ValueError(f"expected a hint with a radius above 0, at most 1, got {hint.radius:g}")
    if not 0 <= hint.strength <= 3:
        raise ValueError(f"expected a hint with a strength in 0..3, got {hint.strength:g}")


def spread_corrections(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the shift of ab (B, 2, h, w) that brings a prediction to the target's colours where the mask marks it.

    prediction, target: LAB (B, 3, h, w), CIE units; mask (B, 1, h, w) of 0 and 1. Elsewhere the shift is that of the marked
    places of similar predicted colour and lightness nearby, and falls to 0 with the distance from them.
    """
    batch, _, height, width = prediction.shape
    rows, columns = (
        torch.arange(n, device=mask.device) / max(height, width) for n in (height, width)
    )
    place = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(batch, -1, -1, -1)
    scales = (SIMILAR_LIGHTNESS, SIMILAR_AB, SIMILAR_AB, NEAR, NEAR)
    scale = torch.tensor(scales, device=mask.device).view(5, 1, 1)
    position = (torch.cat([prediction, place], 1) / scale).flatten(2).mT  # (B, h w, 5)
    missing = (target - prediction)[:, 1:].flatten(2).mT  # (B, h w, 2)
    shift = torch.zeros_like(missing)
    for n, marked in enumerate(mask.flatten(1) > 0):
        if marked.any():
            distance = torch.cdist(position[n], position[n, marked])
            nearest = distance.amin(1, keepdim=True)
            weight = torch.softmax(-0.5 * distance.square(), dim=1)
            shift[n] = torch.exp(-0.5 * nearest.square()) * (weight @ missing[n, marked])
    return shift.mT.unflatten(2, (height, width))


def _ab_of(color: Sequence[int], like: Tensor) -> Tensor:
    rgb = torch.tensor(color, dtype=torch.float32).view(1, 3, 1, 1) / 255
    return rgb_to_lab(rgb)[:, 1:].to(like.device)


def paint_hints(
    rgb: Tensor,
    hints: Sequence[Hint],
    mask: Tensor | None = None,
    mask_color: Sequence[int] = (0, 0, 0),
) -> tuple[Tensor, Tensor]:
    """Paint hints on a gray or colour photo (1, 1 or 3, H, W), sRGB in 0..1, of which only the luminance is used.

    What `mask` (1, 1, H, W), if given, marks by 0.5 or more has the hue and chroma of `mask_color`, sRGB in 0..255; hints
    lie above it, later ones above earlier ones. Return a reference (1, 3, h, w) and its mask (1, 1, h, w), for
    `encode_picture`; a photo of more than 512² pixels is reduced. Raises ValueError for neither hint nor mask, and for
    hints that `validate_hint` refuses.
    """
    if not hints and mask is None:
        raise ValueError("expected at least one hint, got none")
    lightness = rgb_to_lightness(resize_to_working_size(rgb.float(), PAINTED).clamp(0, 1))
    height, width = lightness.shape[2:]
    rows = (torch.arange(height, device=rgb.device) + 0.5).view(-1, 1)
    columns = (torch.arange(width, device=rgb.device) + 0.5).view(1, -1)
    marked = torch.zeros_like(lightness, dtype=torch.bool)
    if mask is not None:
        marked = F.interpolate(mask.to(lightness), (height, width), mode="nearest-exact") >= 0.5
    ab = marked * _ab_of(mask_color, lightness)
    for hint in hints:
        validate_hint(hint)
        # at least the pixel that the hint lies in
        radius = max(hint.radius * min(height, width), 0.75)
        distance = (rows - hint.y * height).square() + (columns - hint.x * width).square()
        disc = (distance <= radius**2) | (distance == distance.min())
        ab = torch.where(disc, hint.strength * _ab_of(hint.color, lightness), ab)
        marked = marked | disc
    return lab_to_rgb(torch.cat([lightness, ab], dim=1), clip=True), marked.to(lightness.dtype)
