"""Attention and valves of pictures: computed from features, drawn as figures, combined into heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..scsnet import SCSNet
from ..scsnet.attention import LEVELS, KeysValues
from ..scsnet.attention_figures import Heat, draw_attention, draw_valves, stack_figures
from ..scsnet.resample import STRIDE, resample_bicubic
from . import host

ATTENTION, VALVES, BOTH = "attention", "valves", "both"
ALL_LEVELS = "all"


class Maps(NamedTuple):
    """Maps of one picture."""

    attention: list[list[list[Heat]]]
    """[level][point][reference]; empty unless requested."""
    valves: list[tuple[Heat, Heat]]
    """V1 and V2 per level; empty unless requested."""


def parse_level(net: SCSNet, level: str) -> list[int]:
    """Return pyramid levels counted from 0, for a name such as "D2" or for "all".

    Raises ValueError for a level that the network lacks.
    """
    names = [
        f"D{factor}"
        for factor in LEVELS[: len(getattr(net.color_branch.cross_attention, "levels", ()))]
    ]
    if not names:
        raise ValueError('the network was trained with attention="none": it has no attention maps')
    if level == ALL_LEVELS:
        return list(range(len(names)))
    if level not in names:
        raise ValueError(f"level: this network has {', '.join(names)}, got {level!r}")
    return [names.index(level)]


def compute_maps(
    net: SCSNet, source: Tensor, keys_values: Sequence[KeysValues], shape: tuple[int, int], reference_shape: tuple[int, int],
    points: list[tuple[float, float]], levels: list[int], what: str,
) -> list[Maps]:  # fmt: skip
    """Compute attention and valves of each picture of a chunk.

    source: F_s (b, 4 width, h/4, w/4) of pictures of `shape` at the working size.
    keys_values: keys and values of references of `reference_shape` at the working size, per level.
    """
    branch = net.color_branch
    result = [Maps([], []) for _ in range(source.shape[0])]
    for level in levels:
        cell = STRIDE * LEVELS[level]
        if what != VALVES:
            weights = branch.attention(source, keys_values, points, shape, level)
            rows = [r.cpu().numpy() for r in weights]  # per reference (b, P, h, w)
            for b, maps in enumerate(result):
                maps.attention.append(
                    [
                        [_heat(r[b, p], reference_shape, cell) for r in rows]
                        for p in range(len(points))
                    ]
                )
        if what != ATTENTION:
            valves = branch.valves(source, keys_values, level)
            v1, v2 = (v.float().cpu().numpy() for v in valves)  # (b, 1, h, w)
            for b, maps in enumerate(result):
                maps.valves.append((_heat(v1[b, 0], shape, cell), _heat(v2[b, 0], shape, cell)))
    return result


def _heat(values: np.ndarray, shape: tuple[int, int], cell: int) -> Heat:
    """Make a map, of cells of `cell` pixels, over a picture of `shape` that was padded to whole cells."""
    return Heat(values, (shape[0] / (values.shape[0] * cell), shape[1] / (values.shape[1] * cell)))


def draw_figure(
    source: Tensor, references: list[Tensor], points: list[tuple[float, float]], maps: Maps, levels: list[int],
    colors: str, opacity: float,
) -> Tensor:  # fmt: skip
    """Draw Fig. 8 for one picture (3, h, w) and its references -> IMAGE (H, W, 3)."""
    picture = _to_array(source)
    factors = [LEVELS[level] for level in levels]
    parts = []
    if maps.attention:
        places = [
            (round(x * picture.shape[1] - 0.5, 1), round(y * picture.shape[0] - 0.5, 1))
            for x, y in points
        ]
        arrays = [_to_array(r) for r in references]
        parts.append(
            draw_attention(
                picture,
                arrays,
                places,
                maps.attention,
                factors,
                colors,
                opacity,
                host.raise_if_interrupted,
            )
        )
    if maps.valves:
        parts.append(draw_valves(picture, maps.valves, factors, colors, host.raise_if_interrupted))
    return torch.from_numpy(stack_figures(parts)).float() / 255


def _to_array(planes: Tensor) -> np.ndarray:
    return planes.float().movedim(0, -1).cpu().numpy()  # (3, h, w) -> (h, w, 3)


def combine_maps(maps: Maps, source: Tensor, references: list[Tensor]) -> list[Tensor]:
    """Combine points and levels into one map (h, w) in 0..1 per reference: maximum over points, mean over levels.

    Where only valves were requested: one map of V2, how much of the references passes, over the source.
    """
    if not maps.attention:
        return [torch.stack([_resize_heat(v2, source) for _, v2 in maps.valves]).mean(0)]
    result = []
    for r, reference in enumerate(references):
        levels = []
        for by_point in maps.attention:
            rows = [
                _resize_heat(h[r], reference) / max(1e-12, max(float(o.values.max()) for o in h))
                for h in by_point
            ]
            levels.append(torch.stack(rows).amax(0))
        result.append(torch.stack(levels).mean(0).clamp(0, 1))
    return result


def _resize_heat(heat: Heat, picture: Tensor) -> Tensor:
    """Resize a map to the picture's (h, w), cutting off what lies over the padding."""
    values, (height, width) = torch.from_numpy(heat.values).float(), picture.shape[1:]
    whole = (round(height / heat.coverage[0]), round(width / heat.coverage[1]))
    return resample_bicubic(values[None, None], whole, (0, 0, height, width))[0, 0].clamp_min(0)
