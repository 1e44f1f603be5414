"""AttentionMapViz: SCS_ATTENTION and points of the picture -> figures, heat, mask."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..scsnet import Features, SCSNet
from ..scsnet.attention import LEVELS
from ..scsnet.figures import Heat, attention_figure, color_map, stacked, valve_figure
from ..scsnet.resample import bicubic
from ..scsnet.sizes import STRIDE
from . import host
from .schema import schema
from .types import Attention, SCSAttention, checked

ATTENTION, VALVES, BOTH = "attention", "valves", "both"
ALL_LEVELS = "all"
COLORS = ["inferno", "viridis"]
MEMORY = (
    2**28
)  # rows of the asked points and one level's valves: little beside the host's own reserve
_PAIR = re.compile(r"([-+]?[\d.]+)\s*,\s*([-+]?[\d.]+)")


def parse_points(text: str) -> list[tuple[float, float]]:
    """ "x, y; x, y", fractions of the width and height -> points. Errors: ValueError that shows how it should look."""
    points = []
    for part in re.split(r"[;\n]", text):
        if not part.strip():
            continue
        match = _PAIR.fullmatch(part.strip())
        try:
            x, y = (float(number) for number in match.groups()) if match else (None, None)
        except ValueError:
            x = y = None
        if x is None or y is None:
            raise ValueError(
                f"points: cannot read {part.strip()!r}; write them as 'x, y; x, y', for example 0.25, 0.4; 0.7, 0.5"
            )
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise ValueError(
                f"points: ({x:g}, {y:g}) is outside of the picture; x and y go from 0 to 1, left to right, top to bottom"
            )
        points.append((x, y))
    if not points:
        raise ValueError(
            "points: none given; click into the picture on the node, or write for example 0.5, 0.5"
        )
    return points


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
    net: SCSNet, features: Features, reference_shape: tuple[int, int], points: list[tuple[float, float]],
    levels: list[int], what: str,
) -> list[Maps]:  # fmt: skip
    """Attention and valves of every picture of a chunk."""
    count, shape = features.color.shape[0], (features.color.shape[2], features.color.shape[3])
    result = [Maps([], []) for _ in range(count)]
    for level in levels:
        cell = STRIDE * LEVELS[level]
        if what != VALVES:
            rows = [
                r.cpu().numpy() for r in net.attention(features, points, level)
            ]  # per reference (b, P, h, w)
            for b, maps in enumerate(result):
                maps.attention.append(
                    [
                        [_heat(r[b, p], reference_shape, cell) for r in rows]
                        for p in range(len(points))
                    ]
                )
        if what != ATTENTION:
            v1, v2 = (v.float().cpu().numpy() for v in net.valves(features, level))  # (b, 1, h, w)
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
            attention_figure(picture, near, places, maps.attention, factors, colors, opacity)
        )
    if maps.valves:
        parts.append(valve_figure(picture, maps.valves, factors, colors))
    return torch.from_numpy(stacked(parts)).float() / 255


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
    return bicubic(values[None, None], whole, (0, 0, height, width))[0, 0].clamp_min(0)


class AttentionMapViz(io.ComfyNode):
    """Where the network looked in the references, and how much it took from there."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See docs/AttentionMapViz.md."""
        return schema(
            node_id="AttentionMapViz",
            display_name="SCS Attention Map",
            category="SCSNet",
            description="Shows where points of the photo found their colours in the references, level by level, and the "
            "valves that decide how much of them passes. Click the points in the picture on the node.",
            search_aliases=["attention map", "heatmap", "explain colorization", "correspondence", "valves"],
            inputs=[
                SCSAttention.Input("attention", tooltip="From SCS Colorize (reference)."),
                io.String.Input(
                    "points", default="0.5, 0.5",
                    tooltip="Points of the photo to look at, 'x, y; x, y' in fractions of its width and height. Easier: "
                    "click into the picture below; drag a point to move it, right click removes it.",
                ),
                io.Combo.Input(
                    "level", options=[ALL_LEVELS, *(f"D{factor}" for factor in LEVELS)], default=ALL_LEVELS,
                    tooltip="Level of the pyramid: D1 is the finest, D4 the coarsest; all shows one column each.",
                ),
                io.Combo.Input(
                    "what", options=[ATTENTION, VALVES, BOTH], default=ATTENTION,
                    tooltip="attention: where the points look in the references. valves: how much passes of the photo's "
                    "own features (V1) and of the references' (V2).",
                ),
                io.Combo.Input("color_map", options=COLORS, default=COLORS[0], optional=True, tooltip="Colours of the heat."),
                io.Float.Input(
                    "overlay", default=1.0, min=0.0, max=1.0, step=0.05, round=0.001, optional=True,
                    tooltip="How strongly the heat covers the reference in the figure.",
                ),
            ],
            advanced=["color_map", "overlay"],
            outputs=[
                io.Image.Output("figure", display_name="figure", tooltip="One figure per photo."),
                io.Image.Output("heat", display_name="heat", tooltip="The heat alone, one per photo and reference."),
                io.Mask.Output("mask", display_name="mask", tooltip="The same as a mask, 0..1."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, attention: object, points: str, level: str = ALL_LEVELS, what: str = ATTENTION, color_map: str = COLORS[0],
        overlay: float = 1.0,
    ) -> io.NodeOutput:  # fmt: skip
        """Errors: ValueError for wrong wiring, points that cannot be read or lie outside, levels that are not there."""
        bundle = checked(attention, Attention, "attention")
        if what not in (ATTENTION, VALVES, BOTH) or color_map not in COLORS:
            raise ValueError(
                f"what must be {ATTENTION}, {VALVES} or {BOTH}, color_map one of {COLORS}, got {what!r}, {color_map!r}"
            )
        figures, heats = draw(bundle, parse_points(points), level, what, color_map, overlay)
        source = bundle.sources[:1].movedim(1, 3).float().cpu()
        preview = ui.PreviewImage(source, cls=None).as_dict()["images"]
        return io.NodeOutput(
            figures, colored(heats, color_map), heats, ui={"scsnet_source": preview}
        )


def draw(
    bundle: Attention,
    points: list[tuple[float, float]],
    level: str,
    what: str,
    colors: str,
    opacity: float,
) -> tuple[Tensor, Tensor]:
    """Figures IMAGE (B, H, W, 3) and heat MASK (B x references, h, w)."""
    figures, heats, b = [], [], 0
    progress = host.Progress(bundle.sources.shape[0])
    with host.on_device(bundle.model, MEMORY) as net:
        levels = asked_levels(net, level)
        for chunk in bundle.features:
            near = chunk.to(host.compute_device())
            for maps in picture_maps(net, near, bundle.reference_shape, points, levels, what):
                source = bundle.sources[b]
                references = [r[b if r.shape[0] > 1 else 0] for r in bundle.references]
                figures.append(figure(source, references, points, maps, levels, colors, opacity))
                heats += combined(maps, source, references)
                b += 1
                progress.between(b - 1, b)(1, 1)
    out = {"device": host.image_device(), "dtype": host.image_dtype()}
    return torch.stack(figures).to(**out), torch.stack(heats).to(**out)


def colored(heats: Tensor, colors: str) -> Tensor:
    """MASK (B, h, w) -> IMAGE (B, h, w, 3) in the colours of a map."""
    rgb = torch.from_numpy(color_map(heats.float().cpu().numpy(), colors)).float() / 255
    return rgb.to(heats)
