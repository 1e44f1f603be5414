"""Loss curves of a run as a picture: `python training/curves.py RUN [--output curves.png]`.

Drawn with Pillow, which the trainer has anyway, from the run's log.jsonl; also while the run goes on.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

from PIL import Image, ImageDraw, ImageFont

from scsnet.atomic_write import open_atomic
from training.config.cli import Parser
from training.engine.logging import LOG, read_log

Curve = list[tuple[int, float]]
"""(step, value), in order."""

PANELS = {
    "content loss (Eq. 5)": {
        "auto_content": "automatic",
        "ref_content": "with references",
        "unrelated_content": "with another's",
        "content": "all",
    },
    "perceptual loss (Eq. 6)": {"perceptual": "VGG"},
    "adversarial loss (Eq. 7)": {"adversarial": "generator", "discriminator": "discriminator"},
    "deep supervision": {"supervision": "heads"},
    "gradient norm": {"gradient": "before clipping"},
    "learning rate": {"learning_rate": "Adam"},
    "validation, by reference: PSNR in dB": {
        "own_psnr": "own",
        "auto_psnr": "none",
        "swap_psnr": "another's",
        "gray_psnr": "gray",
    },
    "validation, by reference: mean error of ab": {
        "own_ab": "own",
        "auto_ab": "none",
        "swap_ab": "another's",
        "gray_ab": "gray",
    },
    "validation, by reference: chroma over the truth's": {
        "own_chroma": "own",
        "auto_chroma": "none",
        "swap_chroma": "another's",
    },
    "validation: another's reference draws the mean colour to its own": {
        "swap_moves": "share of photos",
    },
}
"""Title -> name in the log -> what is said of it. A panel without values is left out."""
COLORS = ((31, 96, 176), (205, 92, 20), (40, 130, 70), (110, 110, 110))
WIDTH, HEIGHT = 560, 300  # of a panel
LEFT, TOP, RIGHT, BOTTOM = 62, 34, 14, 30  # its margins
SMOOTH = 0.04  # of a curve's length: what its running mean runs over


class Frame(NamedTuple):
    """Where values are in a panel."""

    left: int
    top: int
    steps: tuple[int, int]
    values: tuple[float, float]

    def x(self, step: float) -> float:
        """Of a step."""
        low, high = self.steps
        return self.left + LEFT + (step - low) / max(1, high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Of a value."""
        low, high = self.values
        part = min(1.0, max(0.0, (value - low) / (high - low)))
        return self.top + HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)


def running_mean(curve: Curve, reach: int) -> Curve:
    """The mean over `reach` values to both sides."""
    means = []
    for i, (step, _) in enumerate(curve):
        # Evenly to both sides, so that ends do not lag; but a few values always, so that they are no noise.
        near = max(min(reach, i, len(curve) - 1 - i), reach // 3)
        part = [value for _, value in curve[max(0, i - near) : i + near + 1]]
        means.append((step, sum(part) / len(part)))
    return means


def staged(curve: Curve, stages: Sequence[int]) -> list[Curve]:
    """The parts of a curve, stage by stage: what is compared changes from one to the next."""
    borders = [-1, *stages, math.inf]
    return [[p for p in curve if low < p[0] <= high] for low, high in pairwise(borders)]


def ticks(low: float, high: float, count: int = 5) -> Iterator[float]:
    """Round numbers between low and high, about `count` of them."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    number = math.ceil(low / step - 1e-9)
    while number * step <= high + 1e-9 * step:
        yield number * step
        number += 1


def limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Lowest and highest value shown; the largest 1 % of the values may lie beyond."""
    values = sorted(v for curve in curves for _, v in curve if math.isfinite(v))
    if not values:
        return 0.0, 1.0
    low, high = values[0], values[min(len(values) - 1, int(len(values) * 0.99))]
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin


def draw_panel(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    title: str,
    curves: Mapping[str, Curve],
    steps: tuple[int, int],
    stages: Sequence[int],
) -> None:
    """One panel with its axes; `stages` are the first steps of all stages but the first."""
    frame = Frame(*place, steps, limits(list(curves.values())))
    small, large = ImageFont.load_default(12), ImageFont.load_default(15)
    right, bottom = frame.left + WIDTH - RIGHT, frame.top + HEIGHT - BOTTOM
    draw.text((frame.left + LEFT, frame.top + 6), title, fill=(20, 20, 20), font=large)
    for value in ticks(*frame.values):
        y = frame.y(value)
        draw.line((frame.left + LEFT, y, right, y), fill=(228, 228, 228))
        label = f"{value:.4g}"
        length = draw.textlength(label, font=small)
        draw.text((frame.left + LEFT - 6 - length, y - 8), label, fill=(90, 90, 90), font=small)
    for value in ticks(*steps):
        x = frame.x(value)
        draw.line((x, bottom, x, bottom + 4), fill=(150, 150, 150))
        length = draw.textlength(f"{value:g}", font=small)
        draw.text((x - length / 2, bottom + 7), f"{value:g}", fill=(90, 90, 90), font=small)
    for step in stages:
        x = frame.x(step)
        for y in range(frame.top + TOP, bottom, 8):
            draw.line((x, y, x, y + 4), fill=(170, 170, 170))
    legend = right - 6.0
    for color, (name, curve) in reversed(list(zip(COLORS, curves.items(), strict=False))):
        pale = tuple(255 - (255 - c) // 3 for c in color)
        reach = 0 if title == "learning rate" else int(len(curve) * SMOOTH / 2)
        for part in staged(curve, stages):
            if reach:
                draw.line([(frame.x(s), frame.y(v)) for s, v in part], fill=pale)
            smooth = running_mean(part, reach)
            draw.line([(frame.x(s), frame.y(v)) for s, v in smooth], fill=color, width=2)
        legend -= draw.textlength(name, font=small) + 14
        draw.text((legend + 8, frame.top + 9), name, fill=color, font=small)
    draw.rectangle((frame.left + LEFT, frame.top + TOP, right, bottom), outline=(150, 150, 150))


def picture(rows: Sequence[Mapping[str, float]]) -> Image.Image:
    """The lines of a log -> its panels, two beside each other. ValueError where there is nothing to draw."""
    if not rows:
        raise ValueError("the log has no lines yet")
    panels: list[tuple[str, dict[str, Curve]]] = []
    for title, names in PANELS.items():
        found = {
            said: [(int(row["step"]), row[name]) for row in rows if name in row]
            for name, said in names.items()
        }
        if found := {said: curve for said, curve in found.items() if len(curve) > 1}:
            panels.append((title, found))
    if not panels:
        raise ValueError("the log has nothing to draw yet: two lines are needed at least")
    steps = (0, max(int(row["step"]) for row in rows))
    numbered = [(int(row["step"]), row["stage"]) for row in rows if "stage" in row]
    stages = [before for (before, a), (_, b) in pairwise(numbered) if a != b]
    image = Image.new("RGB", (2 * WIDTH, math.ceil(len(panels) / 2) * HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for number, (title, curves) in enumerate(panels):
        place = (number % 2 * WIDTH, number // 2 * HEIGHT)
        draw_panel(draw, place, title, curves, steps, stages)
    return image


def main(arguments: Sequence[str] | None = None) -> None:
    """Options -> a picture."""
    parser = Parser(prog="curves.py", description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder, or a log")
    parser.option(parser, "--output", type=Path, help="curves.png in the run's folder unless named")
    options = parser.parse(arguments)
    try:
        log = options.run / LOG if options.run.is_dir() else options.run
        target = options.output or log.parent / "curves.png"
        image = picture(read_log(log))
        with open_atomic(target) as file:
            image.save(file, "PNG", optimize=True)
        print(target)
    except (OSError, ValueError, KeyError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
