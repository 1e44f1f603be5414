"""Export the weights of a checkpoint: `python training/export.py CHECKPOINT WEIGHTS.safetensors`.

The model card is written beside them: README.md in the folder of the run, WEIGHTS.md elsewhere.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

from training.config import TrainConfig
from training.config.cli import Parser
from training.engine import checkpoints
from training.engine.logging import LOG, read_last_figures
from training.engine.model_card import CARD, export, load_averaged_network


def main(arguments: list[str] | None = None) -> None:
    """Parse the arguments and export the weights."""
    parser = Parser(prog="export.py", description=__doc__)
    add = parser.add_argument
    add("checkpoint", type=Path)
    add("weights", type=Path)
    add("--chroma", type=float, default=1.0, help="multiply a and b of all results")
    text = "default working size of the colour branch; 0: the one it was trained at"
    add("--working-size", type=int, default=0, help=text)
    options = parser.parse(arguments)
    if options.weights.suffix != ".safetensors":
        parser.error(f"weights are a .safetensors file, got {options.weights}")
    with parser.exit_on_errors(checkpoints.RunError):
        state = checkpoints.load(options.checkpoint)
        config, step = TrainConfig.from_dict(state["config"]), state["step"]
        run = options.checkpoint.resolve().parent.parent
        figures = read_last_figures(run / LOG, step)
        inside = options.weights.resolve().parent == run
        card = CARD if inside else options.weights.with_suffix(".md").name
        net = load_averaged_network(state)
        if options.working_size:
            net.config = replace(net.config, working_size=options.working_size)
        facts = (config, step, state["photos"], figures)
        print(export(net, options.weights, *facts, card, options.chroma))


if __name__ == "__main__":
    main()
