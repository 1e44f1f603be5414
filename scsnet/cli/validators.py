"""Values of the command line's options: text in, checked value out, ArgumentTypeError otherwise."""

from __future__ import annotations

import argparse
import math

MAX_SIDE = 100_000  # as scsnet.pipeline, which refuses more than 1.5 gigapixels besides


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def scale(text: str) -> float:
    """Parse a magnification, above 0."""
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def strength(text: str) -> float:
    """Parse a factor on the chroma, 0 or more."""
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, got {text}")
    return value


def side(text: str) -> int:
    """Parse a number of pixels, 1 to MAX_SIDE."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of pixels") from None
    if not 1 <= value <= MAX_SIDE:
        raise argparse.ArgumentTypeError(f"must be 1 to {MAX_SIDE} pixels, got {text}")
    return value


def working_size(text: str) -> int:
    """Parse the bound of the colour branch, which sees features at a quarter of it."""
    value = side(text)
    if not 4 <= value <= 4096:
        raise argparse.ArgumentTypeError(f"must be 4 to 4096 pixels, got {text}")
    return value


def size(text: str) -> tuple[int, int]:
    """Parse "1920x1080" to (height, width) = (1080, 1920)."""
    parts = text.lower().replace("\N{MULTIPLICATION SIGN}", "x").split("x")
    if len(parts) != 2:
        raise argparse.ArgumentTypeError(f"must be like 1920x1080 (width x height), got {text!r}")
    width, height = side(parts[0]), side(parts[1])
    return height, width


def moment(text: str) -> float:
    """ "75.5", "1:15.5" or "0:01:15.5" -> seconds."""
    parts = text.split(":")
    if len(parts) > 3 or any(not part for part in parts):
        raise argparse.ArgumentTypeError(f"must be like 75.5 or 0:01:15.5, got {text!r}")
    seconds = 0.0
    for part in parts:
        value = _number(part)
        if value < 0:
            raise argparse.ArgumentTypeError(f"must be 0 or more, got {text}")
        seconds = 60 * seconds + value
    return seconds


def crf(text: str) -> int:
    """A quality, 0 to 51; lower is better."""
    if not text.isdecimal() or int(text) > 51:
        raise argparse.ArgumentTypeError(f"must be 0 to 51, got {text}")
    return int(text)


def point(text: str) -> tuple[float, float]:
    """Parse "x,y" in pixels of the input."""
    parts = text.split(",")
    if len(parts) != 2:
        raise argparse.ArgumentTypeError(f"must be like 120,80 (x,y in pixels), got {text!r}")
    return _number(parts[0]), _number(parts[1])


def hint(text: str) -> tuple[float, float, tuple[int, int, int], float | None]:
    """Parse "x,y=#rrggbb" or "x,y=#rrggbb,radius", in pixels of the input; None for no radius."""
    from ..hints import parse_color

    place, _, rest = text.partition("=")
    color, comma, radius = rest.partition(",")
    try:
        rgb = parse_color(color)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be like 310,120=#6b4a2b (x,y in pixels, a colour), got {text!r}"
        ) from None
    size = _number(radius) if comma else None
    if size is not None and size <= 0:
        raise argparse.ArgumentTypeError(f"the radius must be above 0, got {radius}")
    return *point(place), rgb, size


def area(text: str) -> tuple[int, int, int, int]:
    """Parse "x,y,w,h" in pixels of the input, not empty."""
    try:
        x, y, w, h = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be like 840,310,200,200 (x,y,width,height in pixels), got {text!r}"
        ) from None
    if x < 0 or y < 0 or w < 1 or h < 1:
        raise argparse.ArgumentTypeError(
            f"must start at 0,0 or more and be 1 x 1 or more, got {text}"
        )
    return x, y, w, h
