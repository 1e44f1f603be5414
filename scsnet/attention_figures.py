"""Figures of attention and valves, like the paper's Fig. 8, drawn with numpy and Pillow.

A figure is a table: one row per point (or valve), the source on the left, then one column per level of the pyramid, D1
the finest. Pictures are (H, W, 1 or 3), uint8 or float in 0..1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL = (320, 256)  # maximum width and height of a picture in the table, in pixels
_GAP = 10
_TEXT = 15

# Colours at even steps from 0 to 1, from the tables of matplotlib (CC0), with linear interpolation between.
_MAPS = {
    "viridis": "440154 482475 414487 355f8d 2a788e 21918c 22a884 44bf70 7ad151 bddf26 fde725",
    "inferno": "000004 160b39 420a68 6a176e 932667 bc3754 dd513a f37819 fca50a f6d746 fcffa4",
}
_POINT_COLORS = [
    "#ff3b30",
    "#34c759",
    "#0a84ff",
    "#ffcc00",
    "#bf5af2",
    "#ff9f0a",
    "#64d2ff",
    "#ff6482",
]


class Heat(NamedTuple):
    """A map over a picture."""

    values: np.ndarray
    """(h, w), non-negative."""
    coverage: tuple[float, float] = (1.0, 1.0)
    """Share of the map's height and width that covers the picture; the rest is padding."""


def apply_color_map(values: np.ndarray, name: str = "inferno") -> np.ndarray:
    """Map numbers in 0..1 (clipped) to RGB (..., 3), uint8, by "viridis" or "inferno"."""
    table = np.array(
        [list(bytes.fromhex(color)) for color in _MAPS[name].split()], dtype=np.float64
    )
    at = np.linspace(0, 1, len(table))
    channels = [np.interp(np.clip(values, 0, 1), at, table[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def overlay_heat(
    picture: np.ndarray, heat: Heat, peak: float, colors: str = "inferno", opacity: float = 1.0
) -> Image.Image:
    """Draw the map over the darkened picture; `peak` is the value of full strength."""
    base = _to_cell(picture)
    strength = _resize_map(heat, base.size) / peak if peak > 0 else np.zeros(base.size[::-1])
    strength = np.clip(strength, 0, 1)[..., None] ** 0.5  # keeps small values visible
    gray = np.asarray(base.convert("L"), dtype=np.float64)[..., None] * 0.55
    glow = apply_color_map(strength[..., 0], colors)
    strength = strength * opacity
    return Image.fromarray((gray * (1 - strength) + glow * strength).round().astype(np.uint8))


def draw_attention(
    source: np.ndarray,
    references: Sequence[np.ndarray],
    points: Sequence[tuple[float, float]],
    maps: Sequence[Sequence[Sequence[Heat]]],
    levels: Sequence[int],
    colors: str = "inferno",
    opacity: float = 1.0,
    step: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """Draw the attention of points (x, y in pixels) of the source -> RGB (H, W, 3), uint8.

    `maps[level][point][reference]` are the weights. Colours are scaled to the maximum over all references of a point;
    with several references the share of each is written below it. `step` is called before each map; an exception that
    it raises stops the drawing.
    """
    header = ["source", *(f"attention, D{level}" for level in levels)]
    rows = []
    for p in range(len(points)):
        row = [
            _add_caption(
                _mark_points(source, points, p),
                f"point {p + 1}: {points[p][0]:g}, {points[p][1]:g}",
            )
        ]
        for level in maps:
            heats = level[p]
            peak = max(float(heat.values.max()) for heat in heats)
            total = sum(float(heat.values.sum()) for heat in heats)
            cells = []
            for picture, heat in zip(references, heats, strict=True):
                step()
                share = float(heat.values.sum()) / total if total > 0 else 0.0
                caption = f"weight {share:.0%}" if len(references) > 1 else ""
                cells.append(
                    _add_caption(overlay_heat(picture, heat, peak, colors, opacity), caption)
                )
            row.append(_join_horizontally(cells))
        rows.append(row)
    return _draw_table(header, rows)


def draw_valves(
    source: np.ndarray,
    valves: Sequence[tuple[Heat, Heat]],
    levels: Sequence[int],
    colors: str = "viridis",
    step: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """Draw V1 and V2 of each level, 0..1 from dark to bright -> RGB (H, W, 3), uint8.

    `step` is called before each map; an exception that it raises stops the drawing.
    """
    header = ["source", *(f"valves, D{level}" for level in levels)]
    rows = []
    for number, what in enumerate(
        ("V1: of the picture's own features", "V2: of the references' features")
    ):
        row = [_add_caption(_to_cell(source), what)]
        for pair in valves:
            step()
            heat = pair[number]
            size = _to_cell(source).size
            picture = Image.fromarray(apply_color_map(_resize_map(heat, size), colors))
            row.append(_add_caption(picture, f"mean {heat.values.mean():.2f} (dark 0, bright 1)"))
        rows.append(row)
    return _draw_table(header, rows)


def stack_figures(figures: Sequence[np.ndarray]) -> np.ndarray:
    """Stack figures vertically on white -> RGB (H, W, 3), uint8."""
    width = max(figure.shape[1] for figure in figures)
    padded = [
        np.pad(f, ((0, 0), (0, width - f.shape[1]), (0, 0)), constant_values=255) for f in figures
    ]
    return np.concatenate(padded)


def _to_cell(picture: np.ndarray) -> Image.Image:
    """Convert a picture to RGB and resize it to a cell."""
    if picture.dtype != np.uint8:
        picture = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    height, width = picture.shape[:2]
    factor = min(CELL[0] / width, CELL[1] / height)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    return image.resize(size, Image.Resampling.BICUBIC).convert("RGB")


def _resize_map(heat: Heat, size: tuple[int, int]) -> np.ndarray:
    """Resize the map without its padding to `size` (width, height) -> float64 (height, width)."""
    height, width = heat.values.shape
    box = (0.0, 0.0, width * min(1.0, heat.coverage[1]), height * min(1.0, heat.coverage[0]))
    image = Image.fromarray(heat.values.astype(np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box), dtype=np.float64)


def _mark_points(
    source: np.ndarray, points: Sequence[tuple[float, float]], current: int
) -> Image.Image:
    """Draw the source with all points numbered, the one at index `current` larger."""
    image = _to_cell(source)
    draw = ImageDraw.Draw(image)
    factor = image.width / source.shape[1], image.height / source.shape[0]
    for number, (x, y) in enumerate(points):
        color = _POINT_COLORS[number % len(_POINT_COLORS)]
        centre = (x + 0.5) * factor[0], (y + 0.5) * factor[1]
        radius = 11 if number == current else 8
        for margin, fill in ((2, "black"), (1, "white"), (-1, color)):
            r = radius + margin
            draw.ellipse((centre[0] - r, centre[1] - r, centre[0] + r, centre[1] + r), fill=fill)
        draw.text(
            centre,
            str(number + 1),
            anchor="mm",
            font=_font(12),
            fill="white",
            stroke_width=1,
            stroke_fill="black",
        )
    return image


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _add_caption(image: Image.Image, text: str) -> Image.Image:
    """Write `text` under the image; an empty text leaves it unchanged."""
    if not text:
        return image
    width = max(image.width, int(_font(_TEXT).getlength(text)) + 1)
    result = Image.new("RGB", (width, image.height + _TEXT + 6), "white")
    result.paste(image)
    ImageDraw.Draw(result).text((0, image.height + 2), text, font=_font(_TEXT), fill="black")
    return result


def _join_horizontally(images: Sequence[Image.Image]) -> Image.Image:
    result = Image.new(
        "RGB",
        (sum(i.width for i in images) + _GAP * (len(images) - 1), max(i.height for i in images)),
        "white",
    )
    x = 0
    for image in images:
        result.paste(image, (x, 0))
        x += image.width + _GAP
    return result


def _draw_table(header: Sequence[str], rows: Sequence[Sequence[Image.Image]]) -> np.ndarray:
    """Arrange cells of any size in rows and columns on white -> RGB (H, W, 3), uint8."""
    titles = [int(_font(_TEXT).getlength(text)) + 1 for text in header]
    widths = [max([title, *(row[c].width for row in rows)]) for c, title in enumerate(titles)]
    heights = [max(cell.height for cell in row) for row in rows]
    top = _TEXT + 2 * _GAP
    size = sum(widths) + _GAP * (len(widths) + 1), top + sum(heights) + _GAP * len(heights)
    table = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(table)
    x = _GAP
    for c, text in enumerate(header):
        draw.text((x, _GAP), text, font=_font(_TEXT), fill="black")
        y = top
        for row, height in zip(rows, heights, strict=True):
            table.paste(row[c], (x, y))
            y += height + _GAP
        x += widths[c] + _GAP
    return np.asarray(table)
