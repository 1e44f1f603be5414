"""SCSContinuousUpscale: SCS_LAB -> IMAGE of any size, or a window of it."""

from __future__ import annotations

from math import floor
from typing import Literal

from comfy_api.latest import io

from ..scsnet.pipeline import MAX_PIXELS, MAX_SIDE, output_size
from ..scsnet.tiling import Window
from .batching import upscale
from .compat import make_schema
from .image_tensors import Picture, to_planes
from .types import Lab, SCSLab, require_type

SCALE, SIZE, MEGAPIXELS = "scale", "width and height", "megapixels"
MIN_SCALE, MAX_SCALE = 0.1, 16.0


def compute_target_size(
    size: tuple[int, int], by: str, scale: float, width: int, height: int, megapixels: float, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:  # fmt: skip
    """Return (height, width) of the whole result. Raises ValueError for invalid and for too large sizes."""
    if by == SCALE:
        if not MIN_SCALE <= scale <= MAX_SCALE:
            raise ValueError(f"scale must be between {MIN_SCALE} and {MAX_SCALE}, got {scale}")
        return output_size(*size, scale=scale, max_pixels=max_pixels)
    if by == MEGAPIXELS:
        return output_size(*size, megapixels=megapixels, max_pixels=max_pixels)
    if by != SIZE:
        raise ValueError(f"size_by must be {SCALE!r}, {SIZE!r} or {MEGAPIXELS!r}, got {by!r}")
    if width < 1 and height < 1:
        raise ValueError(
            "width and height are both 0: set at least one of them; the other follows from the photo's shape"
        )
    if width < 1:
        width = max(1, round(size[1] * height / size[0]))
    if height < 1:
        height = max(1, round(size[0] * width / size[1]))
    return output_size(*size, size=(height, width), max_pixels=max_pixels)


def to_pixel_window(
    size: tuple[int, int], x: float, y: float, width: float, height: float
) -> Window:
    """Convert a window from fractions of the picture to output pixels. Raises ValueError where it reaches outside."""
    if not (
        0 <= x < 1
        and 0 <= y < 1
        and width > 0
        and height > 0
        and x + width <= 1 + 1e-6
        and y + height <= 1 + 1e-6
    ):
        raise ValueError(
            f"the window must lie inside the picture, 0..1: got x {x}, y {y}, width {width}, height {height}, which "
            f"reaches from ({x}, {y}) to ({x + width:.3f}, {y + height:.3f})"
        )
    top, bottom = _to_pixels(y, height, size[0])
    left, right = _to_pixels(x, width, size[1])
    return Window(top, left, bottom - top, right - left)


def _to_pixels(start: float, length: float, total: int) -> tuple[int, int]:
    first = min(total - 1, floor(start * total + 0.5))
    return first, max(first + 1, min(total, floor((start + length) * total + 0.5)))


def parse_luminance(bundle: Lab, keep: bool, image: object) -> Literal["input"] | Picture | None:
    """Return what replaces the network's luminance; None keeps it. Raises ValueError for a batch of another length."""
    if image is None:
        return "input" if keep else None
    picture = to_planes(image, "luminance_image")
    if picture.count not in (1, bundle.count):
        raise ValueError(
            f"luminance_image: expected 1 picture or as many as were colorized ({bundle.count}), got {picture.count}"
        )
    return picture


class SCSContinuousUpscale(io.ComfyNode):
    """Renders colorized pictures at any size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; its help page is docs/SCSContinuousUpscale.md."""
        window = "Part of the picture to render, in fractions of its {}. Only its own pixels cost time and memory."
        return make_schema(
            node_id="SCSContinuousUpscale",
            display_name="SCS Continuous Upscale",
            category="SCSNet",
            description="Renders colorized photos at any size, any decimal scale, or a window of it. Nothing is colorized "
            "again: trying many sizes is cheap.",
            search_aliases=["upscale", "super resolution", "arbitrary scale", "continuous zoom", "resize", "enlarge"],
            inputs=[
                SCSLab.Input("lab", tooltip="From one of the SCS Colorize nodes."),
                io.Combo.Input(
                    "size_by", options=[SCALE, SIZE, MEGAPIXELS], default=SCALE, tooltip="Which of the numbers below sets the size."
                ),
                io.Float.Input(
                    "scale", default=4.0, min=MIN_SCALE, max=MAX_SCALE, step=0.01, round=0.0001,
                    tooltip="Times the photo's own size; any decimal. Used when 'size by' is 'scale'.",
                ),
                io.Int.Input(
                    "width", default=0, min=0, max=100_000, step=1, optional=True,
                    tooltip="Pixels. 0: follows from the height and the photo's shape. Used when 'size by' is "
                    "'width and height'.",
                ),
                io.Int.Input(
                    "height", default=0, min=0, max=100_000, step=1, optional=True,
                    tooltip="Pixels. 0: follows from the width and the photo's shape. Used when 'size by' is "
                    "'width and height'.",
                ),
                io.Float.Input(
                    "megapixels", default=4.0, min=0.01, max=1500.0, step=0.01, round=0.0001, optional=True,
                    tooltip="Millions of pixels in all, in the photo's shape. Used when 'size by' is 'megapixels'.",
                ),
                io.Boolean.Input(
                    "keep_luminance", default=False, optional=True,
                    tooltip="On: the photo's own luminance, enlarged; only the colours are the network's. Off: the "
                    "network's luminance, which is sharper.",
                ),
                _fraction("window_x", 0.0, window.format("width: the left border")),
                _fraction("window_y", 0.0, window.format("height: the upper border")),
                _fraction("window_width", 1.0, window.format("width"), 0.001),
                _fraction("window_height", 1.0, window.format("height"), 0.001),
                io.Image.Input(
                    "luminance_image", optional=True,
                    tooltip="Use the luminance of this picture instead, for example of a restored or enlarged copy. It "
                    "is brought to the size of the whole result. One, or one per picture.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=3.0, step=0.05, round=0.001, optional=True,
                    tooltip="Factor on the colours, beside the strength of the SCS Colorize node: 0 is gray, 1 leaves them "
                    "as they are, above 1 is more vivid. Changing it colorizes nothing again.",
                ),
            ],
            advanced=["window_x", "window_y", "window_width", "window_height"],
            outputs=[io.Image.Output("image", display_name="image", tooltip="The photo at the chosen size.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, lab: object, size_by: str = SCALE, scale: float = 4.0, width: int = 0, height: int = 0,
        megapixels: float = 4.0, keep_luminance: bool = False, window_x: float = 0.0, window_y: float = 0.0,
        window_width: float = 1.0, window_height: float = 1.0, luminance_image: object = None,
        strength: float = 1.0,
    ) -> io.NodeOutput:  # fmt: skip
        """Render a batch. Raises ValueError for wrong links, sizes and windows and for results that do not fit into memory."""
        bundle = require_type(lab, Lab, "lab")
        # A window is limited by its own pixels; the whole of which it is a part may be larger.
        max_pixels = MAX_PIXELS if window_width * window_height >= 1 else MAX_SIDE**2
        size = compute_target_size(
            bundle.size, size_by, scale, width, height, megapixels, max_pixels
        )
        window = to_pixel_window(size, window_x, window_y, window_width, window_height)
        luminance = parse_luminance(bundle, keep_luminance, luminance_image)
        return io.NodeOutput(upscale(bundle, size, window, luminance, strength))


def _fraction(name: str, default: float, tooltip: str, smallest: float = 0.0) -> io.Input:
    return io.Float.Input(
        name,
        default=default,
        min=smallest,
        max=1.0,
        step=0.001,
        round=0.00001,
        optional=True,
        tooltip=tooltip,
    )
