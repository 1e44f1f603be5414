"""Attention and valves of a picture, as figures and as heat. What the network is asked, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..scsnet import SCSNet
from ..scsnet.attention import LEVELS, Memory
from ..scsnet.attention_figures import Heat, draw_attention, draw_valves, stack_figures
from ..scsnet.resample import STRIDE, resample_bicubic
from . import host

ATTENTION, VALVES, BOTH = "attention", "valves", "both"
ALL_LEVELS = "all"


class Maps(NamedTuple):
    """Of one picture."""

    attention: list[list[list[Heat]]]
    """[level][point][reference]; empty where it was not asked for."""
    valves: list[tuple[Heat, Heat]]
    """[level]; empty where it was not asked for."""


def asked_levels(net: SCSNet, level: str) -> list[int]:
    """Pyramid levels counted from 0. Errors: ValueError for one that this network lacks."""
    have = [
        f"D{factor}"
        for factor in LEVELS[: len(getattr(net.color_branch.cross_attention, "levels", ()))]
    ]
    if not have:
        raise ValueError('this network has attention="none": there are no attention maps')
    if level == ALL_LEVELS:
        return list(range(len(have)))
    if level not in have:
        raise ValueError(f"level: this network has {', '.join(have)}, got {level!r}")
    return [have.index(level)]


def picture_maps(
    net: SCSNet, source: Tensor, memories: Sequence[Memory], shape: tuple[int, int], reference_shape: tuple[int, int],
    points: list[tuple[float, float]], levels: list[int], what: str,
) -> list[Maps]:  # fmt: skip
    """Attention and valves of every picture of a chunk.

    source: F_s (b, 4 width, h/4, w/4) of pictures seen at `shape`; memories: of references seen at `reference_shape`.
    """
    branch = net.color_branch
    result = [Maps([], []) for _ in range(source.shape[0])]
    for level in levels:
        cell = STRIDE * LEVELS[level]
        if what != VALVES:
            found = branch.attention(source, memories, points, shape, level)
            rows = [r.cpu().numpy() for r in found]  # per reference (b, P, h, w)
            for b, maps in enumerate(result):
                maps.attention.append(
                    [
                        [_heat(r[b, p], reference_shape, cell) for r in rows]
                        for p in range(len(points))
                    ]
                )
        if what != ATTENTION:
            valves = branch.valves(source, memories, level)
            v1, v2 = (v.float().cpu().numpy() for v in valves)  # (b, 1, h, w)
            for b, maps in enumerate(result):
                maps.valves.append((_heat(v1[b, 0], shape, cell), _heat(v2[b, 0], shape, cell)))
    return result


def _heat(values: np.ndarray, shape: tuple[int, int], cell: int) -> Heat:
    """A map of cells of `cell` pixels over a picture of `shape`, which was padded to whole cells."""
    return Heat(values, (shape[0] / (values.shape[0] * cell), shape[1] / (values.shape[1] * cell)))


def figure(
    source: Tensor, references: list[Tensor], points: list[tuple[float, float]], maps: Maps, levels: list[int],
    colors: str, opacity: float,
) -> Tensor:  # fmt: skip
    """Fig. 8 for one picture (3, h, w) and its references -> IMAGE (H, W, 3)."""
    picture = _array(source)
    factors = [LEVELS[level] for level in levels]
    parts = []
    if maps.attention:
        places = [
            (round(x * picture.shape[1] - 0.5, 1), round(y * picture.shape[0] - 0.5, 1))
            for x, y in points
        ]
        near = [_array(r) for r in references]
        parts.append(
            draw_attention(
                picture, near, places, maps.attention, factors, colors, opacity, host.ask
            )
        )
    if maps.valves:
        parts.append(draw_valves(picture, maps.valves, factors, colors, host.ask))
    return torch.from_numpy(stack_figures(parts)).float() / 255


def _array(planes: Tensor) -> np.ndarray:
    return planes.float().movedim(0, -1).cpu().numpy()  # (3, h, w) -> (h, w, 3)


def combined(maps: Maps, source: Tensor, references: list[Tensor]) -> list[Tensor]:
    """One map (h, w) in 0..1 per reference: the strongest point at each place, mean over the levels.

    Without attention: how much of the reference passes (V2), over the source.
    """
    if not maps.attention:
        return [torch.stack([_resized(v2, source) for _, v2 in maps.valves]).mean(0)]
    result = []
    for r, reference in enumerate(references):
        levels = []
        for by_point in maps.attention:
            rows = [
                _resized(h[r], reference) / max(1e-12, max(float(o.values.max()) for o in h))
                for h in by_point
            ]
            levels.append(torch.stack(rows).amax(0))
        result.append(torch.stack(levels).mean(0).clamp(0, 1))
    return result


def _resized(heat: Heat, picture: Tensor) -> Tensor:
    """A map brought to the picture's size, without its padding."""
    values, (height, width) = torch.from_numpy(heat.values).float(), picture.shape[1:]
    whole = (round(height / heat.coverage[0]), round(width / heat.coverage[1]))
    return resample_bicubic(values[None, None], whole, (0, 0, height, width))[0, 0].clamp_min(0)
