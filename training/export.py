"""Export weights: a .safetensors file for the nodes and the command line, and its model card."""

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
    """Export the weights of a checkpoint: `python training/export.py CHECKPOINT WEIGHTS.safetensors`.

    The model card is written beside them: README.md in the folder of the run, WEIGHTS.md elsewhere.
    """
    parser = Parser(prog="export.py", description=main.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("weights", type=Path)
    parser.option(
        parser, "--chroma", type=float, default=1.0, help="multiply a and b of all results"
    )
    parser.option(
        parser,
        "--working-size",
        type=int,
        default=0,
        help="default working size of the colour branch; 0: the one it was trained at",
    )
    options = parser.parse(arguments)
    if options.weights.suffix != ".safetensors":
        parser.error(f"weights are a .safetensors file, got {options.weights}")
    with parser.exit_on_errors(checkpoints.RunError):
        state = checkpoints.load(options.checkpoint)
        config, step = TrainConfig.from_dict(state["config"]), state["step"]
        run = options.checkpoint.resolve().parent.parent
        figures = read_last_figures(run / LOG, step)
        at_home = options.weights.resolve().parent == run
        card = CARD if at_home else options.weights.with_suffix(".md").name
        net = load_averaged_network(state)
        if options.working_size:
            net.config = replace(net.config, working_size=options.working_size)
        print(
            export(
                net, options.weights, config, step, state["photos"], figures, card, options.chroma
            )
        )


if __name__ == "__main__":
    main()
