"""AttentionMapViz: SCS_ATTENTION and points of the photo -> figures, heat maps, masks, scores of the references."""

from __future__ import annotations

import re

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..scsnet.attention import LEVELS
from ..scsnet.attention_figures import apply_color_map
from ..scsnet.features import move_features
from ..scsnet.model import draw_uncovered
from . import host, memory_estimates
from .attention_maps import (
    ALL_LEVELS,
    ATTENTION,
    BOTH,
    VALVES,
    combine_maps,
    compute_maps,
    draw_figure,
    parse_level,
)
from .compat import make_schema
from .types import Attention, SCSAttention, require_type

COLORS = ["inferno", "viridis"]
# Bytes for the attention of the points and one level's valves; little beside the host's own reserve.
MEMORY = 2**28
_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+))"
_PAIR = re.compile(rf"{_NUMBER}\s*,\s*{_NUMBER}")


def parse_points(text: str) -> list[tuple[float, float]]:
    """Parse "x, y; x, y", in fractions of the width and height. Raises ValueError with an example of the format."""
    points = []
    for part in re.split(r"[;\n]", text):
        if not part.strip():
            continue
        match = _PAIR.fullmatch(part.strip())
        if match is None:
            raise ValueError(
                f"points: cannot read {part.strip()!r}; write them as 'x, y; x, y', for example 0.25, 0.4; 0.7, 0.5"
            )
        x, y = float(match[1]), float(match[2])
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


class AttentionMapViz(io.ComfyNode):
    """Shows the attention of points of the photo, and the valves."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; its help page is docs/AttentionMapViz.md."""
        return make_schema(
            node_id="AttentionMapViz",
            display_name="SCS Attention Map",
            category="SCSNet",
            description="Shows where points of the photo found their colours in the references, level by level, the valves "
            "that decide how much of them passes, and which places no reference covers. Click the points in the picture on "
            "the node.",
            search_aliases=["attention map", "heatmap", "explain colorization", "correspondence", "valves", "coverage"],
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
            # The node shows the photo. For results from its cache ComfyUI sends the ui part of output nodes only, as
            # after the page was reloaded.
            is_output_node=True,
            advanced=["color_map", "overlay"],
            outputs=[
                io.Image.Output("figure", display_name="figure", tooltip="One figure per photo."),
                io.Image.Output("heat", display_name="heat", tooltip="The heat alone, one per photo and reference."),
                io.Mask.Output("mask", display_name="mask", tooltip="The same as a mask, 0..1."),
                io.Mask.Output(
                    "coverage", display_name="coverage",
                    tooltip="Where the colours did not come from a reference, 0..1, one mask of the photo's size per photo. "
                    "Points and level have no effect on it.",
                ),
                io.String.Output(
                    "scores", display_name="scores",
                    tooltip="How much of the photo's colours comes from each reference, one line each.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, attention: object, points: str, level: str = ALL_LEVELS, what: str = ATTENTION, color_map: str = COLORS[0],
        overlay: float = 1.0,
    ) -> io.NodeOutput:  # fmt: skip
        """Raises ValueError for wrong links, points and levels."""
        bundle = require_type(attention, Attention, "attention")
        if what not in (ATTENTION, VALVES, BOTH) or color_map not in COLORS:
            raise ValueError(
                f"what must be {ATTENTION}, {VALVES} or {BOTH}, color_map one of {COLORS}, got {what!r}, {color_map!r}"
            )
        figures, heats, uncovered, scores = draw_batch(
            bundle, parse_points(points), level, what, color_map, overlay
        )
        source = bundle.sources[:1].movedim(1, 3).float().cpu()
        preview = ui.PreviewImage(source, cls=None).as_dict()["images"]
        return io.NodeOutput(
            figures, color_heat(heats, color_map), heats, uncovered, describe_scores(bundle, scores),
            ui={"scsnet_source": preview},
        )  # fmt: skip


def draw_batch(
    bundle: Attention,
    points: list[tuple[float, float]],
    level: str,
    what: str,
    colors: str,
    opacity: float,
) -> tuple[Tensor, Tensor, Tensor, list[list[float]]]:
    """Draw all pictures -> figures, IMAGE (B, H, W, 3), heat, MASK (B x references, h, w), what no reference covers, MASK
    (B, H, W) of the pictures' size, and scores, per picture and reference.
    """
    figures = heats = uncovered = torch.empty(0)
    scores: list[list[float]] = []
    count, device, b = bundle.sources.shape[0], host.compute_device(), 0
    progress = host.Progress(count)
    with host.use_network(bundle.model, MEMORY) as net:
        levels = parse_level(net, level)
        keys_values = move_features(bundle.keys_values[0], device)
        for number, queries in enumerate(bundle.queries):
            if number and len(bundle.keys_values) > 1:
                keys_values = move_features(bundle.keys_values[number], device)
            source_features = queries.to(device)
            coverage = net.color_branch.coverage(source_features, keys_values)
            scores += coverage.mean((2, 3)).tolist()
            chunk = compute_maps(
                net, source_features, keys_values, bundle.shape, bundle.reference_shape, points, levels, what
            )  # fmt: skip
            for maps, covered in zip(chunk, coverage.to(host.image_device()).split(1), strict=True):
                source = bundle.sources[b]
                references = [r[b if r.shape[0] > 1 else 0] for r in bundle.references]
                figure = draw_figure(source, references, points, maps, levels, colors, opacity)
                heat = combine_maps(maps, source, references)
                mask = draw_uncovered(covered, bundle.shape, bundle.size, bundle.inside)[0, 0]
                if b == 0:  # those of the other pictures have the same sizes
                    figures = _allocate(count, figure)
                    heats = _allocate(count * len(heat), heat[0])
                    uncovered = _allocate(count, mask)
                figures[b], uncovered[b] = figure, mask
                for r, values in enumerate(heat):
                    heats[b * len(heat) + r] = values
                b += 1
                progress.between(b - 1, b)(1, 1)
    return figures, heats, uncovered, scores


def describe_scores(bundle: Attention, scores: list[list[float]]) -> str:
    """Write one line per picture and reference, such as "picture 1, reference 2: 40%"."""
    one_each = bundle.references[0].shape[0] > 1
    return "\n".join(
        f"picture {b}, reference {b if one_each else r}: {score:.0%}"
        for b, row in enumerate(scores, 1)
        for r, score in enumerate(row, 1)
    )


def _allocate(count: int, first: Tensor) -> Tensor:
    """Allocate `count` results of the first one's shape. Raises ValueError where memory does not suffice."""
    size = (first.shape[0], first.shape[1])
    host.check_room(
        memory_estimates.image_bytes(count, size, False), f"Figures and masks of {count} pictures"
    )
    return torch.empty((count, *first.shape), device=host.image_device(), dtype=host.image_dtype())


def color_heat(heats: Tensor, colors: str) -> Tensor:
    """MASK (B, h, w) -> IMAGE (B, h, w, 3) in the colours of a color map."""
    result = torch.empty((*heats.shape, 3), device=heats.device, dtype=heats.dtype)
    for number, heat in enumerate(heats):
        host.raise_if_interrupted()
        result[number] = torch.from_numpy(apply_color_map(heat.float().cpu().numpy(), colors)) / 255
    return result
