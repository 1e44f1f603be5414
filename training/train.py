"""Train SCSNet: `python training/train.py --data PHOTOS --output RUN [--preset laptop] [--FIELD VALUE ...]`.

Continue a run: `python training/train.py --output RUN --resume`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone that is not installed

from training.config import TrainConfig
from training.config.cli import Parser
from training.config.overrides import (
    CONFIG,
    apply_overrides,
    config_parser,
    describe_config,
    format_options,
    load_config,
)
from training.config.presets import PRESETS


def describe_presets() -> str:
    """Return the presets, each with the first line of its docstring."""
    first_lines = {name: (make.__doc__ or "").splitlines()[0] for name, make in PRESETS.items()}
    return "\n".join(["presets:", *(f"  {name:10}{line}" for name, line in first_lines.items())])


def read_options(arguments: Sequence[str] | None) -> tuple[TrainConfig, bool, bool]:
    """Parse the arguments; return the config, --resume and --dry-run. Exits with a message for invalid ones."""
    words = Parser.tidy(arguments)
    parser = Parser(prog="train.py", description=__doc__, epilog=describe_presets())
    add = parser.add_argument
    add("--preset", choices=tuple(PRESETS), help="config to start from (default: laptop)")
    add("--config", default="", help="config.json to start from, instead of a preset")
    add("--resume", action="store_true", help="continue the run in --output")
    add("--dry-run", action="store_true", help="check the data, estimate time and memory, stop")
    add("--options-table", action="store_true", help="print all options as Markdown and stop")
    if "--options-table" in words:
        print(format_options())
        sys.exit()
    # The number of stages decides which options there are, so these are parsed first.
    first = Parser(add_help=False)
    for name in ("--preset", "--config", "--output"):
        first.add_argument(name, default="", type=os.path.expanduser)
    known, _ = first.parse_known_args(words)
    resume = "--resume" in words
    if resume and (known.preset or known.config):
        parser.error("--resume uses the config of the run: leave out --preset and --config")
    if resume and not known.output:
        parser.error("--output is required with --resume: the folder of the run")
    if known.preset and known.config:
        parser.error("expected either --preset or --config, got both")
    try:
        if resume or known.config:
            config = load_config(Path(known.config or Path(known.output, CONFIG)))
        else:
            config = PRESETS.get(known.preset, PRESETS["laptop"])()
        config_parser(parser, words, len(config.stages))
        options = parser.parse(words)
        config = apply_overrides(config, vars(options))
    except ValueError as error:
        parser.error(str(error))
    if not config.data:
        parser.error("--data is required: the photos to train on")
    if not config.output and not options.dry_run:
        parser.error("--output is required: the folder of the run")
    return config, options.resume, options.dry_run


def run(config: TrainConfig, resume: bool, dry_run: bool) -> None:
    """Print the config, then train, or with `dry_run` estimate what training needs."""
    from training.engine.distributed import is_main_process
    from training.engine.dry_run import describe_data, measure
    from training.engine.loop import train
    from training.engine.malloc import keep_freed_memory

    if is_main_process():
        print("\n".join(describe_config(config)))
    keep_freed_memory()
    if dry_run:
        for line in chain(describe_data(config), measure(config)):
            print(line, flush=True)
        return
    weights = train(config, resume=resume)
    if is_main_process():
        print(f"weights: {weights}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and run."""
    config, resume, dry_run = read_options(arguments)
    with Parser(prog="train.py").exit_on_errors():
        from training.engine.checkpoints import RunError

        try:
            run(config, resume, dry_run)
        except (RunError, ValueError, OSError) as error:
            sys.exit(f"train.py: {error}")


if __name__ == "__main__":
    main()
