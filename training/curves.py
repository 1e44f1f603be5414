"""Plot the losses and metrics of a run, also while it runs: `python training/curves.py RUN [--output curves.png]`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone that is not installed

from scsnet.atomic_write import open_atomic
from training.config.cli import Parser
from training.engine.logging import LOG, read_log

PANELS = {
    "content loss (Eq. 5)": ("auto_content", "ref_content"),
    "perceptual loss (Eq. 6)": ("perceptual",),
    "adversarial loss (Eq. 7)": ("adversarial", "discriminator"),
    "deep supervision": ("supervision",),
    "gradient norm": ("gradient",),
    "learning rate": ("learning_rate",),
    "validation: PSNR in dB": ("own_psnr", "auto_psnr", "swap_psnr", "gray_psnr"),
    "validation: mean ab error": ("own_ab", "auto_ab", "swap_ab", "gray_ab"),
    "validation: chroma relative to the target": ("own_chroma", "auto_chroma", "swap_chroma"),
    "validation: mean ab moves towards another reference": ("swap_moves",),
}
"""Title of a panel -> names in the log. Panels without values are left out."""
Curves = dict[str, tuple[list[int], list[float]]]
"""Name in the log -> steps and values."""


def group_curves(rows: Sequence[Mapping[str, float]]) -> dict[str, Curves]:
    """Return the curves of every panel that has values, from the rows of a log."""
    panels: dict[str, Curves] = {}
    for title, names in PANELS.items():
        for name in names:
            points = [(int(row["step"]), row[name]) for row in rows if name in row]
            if points:
                steps, values = zip(*points, strict=True)
                panels.setdefault(title, {})[name] = (list(steps), list(values))
    return panels


def plot(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Plot the rows of a log to a PNG; dotted lines mark the starts of stages. Raises ValueError for an empty log."""
    from matplotlib.figure import Figure

    panels = group_curves(rows)
    if not panels:
        raise ValueError("the log has no lines yet")
    stages = [(row["step"], row["stage"]) for row in rows if "stage" in row]
    starts = [b[0] for a, b in pairwise(stages) if a[1] != b[1]]
    height = (len(panels) + 1) // 2
    figure = Figure(figsize=(11, 3 * height), layout="constrained")
    for number, (title, curves) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(height, 2, number)
        for name, (steps, values) in curves.items():
            axes.plot(steps, values, linewidth=1, label=name.rsplit("_", 1)[0])
        for start in starts:
            axes.axvline(start, color="gray", linestyle=":", linewidth=1)
        axes.set_title(title, fontsize=10)
        axes.legend(fontsize=8)
    with open_atomic(path) as file:
        figure.savefig(file, format="png")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and write the plot."""
    parser = Parser(prog="curves.py", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--output", type=Path, help="PNG (default: RUN/curves.png)")
    options = parser.parse(arguments)
    output = options.output or options.run / "curves.png"
    with parser.exit_on_errors():
        plot(read_log(options.run / LOG), output)
    print(output)


if __name__ == "__main__":
    main()
