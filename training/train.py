"""Train SCSNet: `python training/train.py --data PHOTOS --output RUN [--preset laptop] [--FIELD VALUE ...]`.

Continue a run: `python training/train.py --output RUN --resume`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone that is not installed

from training.config import TrainConfig, overrides
from training.config.cli import Parser, replace_underscores
from training.config.presets import PRESETS
from training.engine.checkpoints import RunError


def make_parser(words: Sequence[str]) -> Parser:
    """Return the parser of the arguments, whose help lists the presets with the first line of their docstrings."""
    docs = {name: make.__doc__ or "" for name, make in PRESETS.items()}
    presets = [f"  {name:10}{doc.splitlines()[0]}" for name, doc in docs.items()]
    parser = Parser(prog="train.py", description=__doc__, epilog="\n".join(["presets:", *presets]))
    add = parser.add_mutually_exclusive_group().add_argument
    add("--preset", choices=tuple(PRESETS), help="config to start from (default: laptop)")
    add("--config", type=os.path.expanduser, help="config.json to start from, instead of a preset")
    add("--resume", action="store_true", help="continue the run in --output with its config")
    add = parser.add_argument
    add("--dry-run", action="store_true", help="estimate time and memory, stop")
    add("--options-table", action="store_true", help="print all options as Markdown and stop")
    overrides.add_config_options(parser, words)
    return parser


def read_options(arguments: Sequence[str] | None) -> tuple[TrainConfig, bool, bool]:
    """Parse the arguments; return the config, --resume and --dry-run. Exits with a message for invalid ones."""
    words = replace_underscores(arguments)
    parser = make_parser(words)
    options = parser.parse(words)
    if options.options_table:
        print(overrides.format_options())
        parser.exit()
    if options.resume and not options.output:
        parser.error("--output is required with --resume: the folder of the run")
    with parser.exit_on_errors():
        file = Path(options.output, overrides.CONFIG) if options.resume else options.config
        preset = PRESETS[options.preset or "laptop"]
        config = overrides.load_config(Path(file)) if file else preset()
        config = overrides.apply_overrides(config, vars(options))
    if not config.data:
        parser.error("--data is required: the photos to train on")
    if not config.output and not options.dry_run:
        parser.error("--output is required: the folder of the run")
    return config, options.resume, options.dry_run


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or with --dry-run estimate what training needs."""
    config, resume, dry_run = read_options(arguments)
    is_main = os.environ.get("RANK", "0") == "0"  # set by torchrun and accelerate
    with Parser(prog="train.py").exit_on_errors(RunError):
        from training.engine.dry_run import estimate
        from training.engine.loop import train
        from training.engine.malloc import keep_freed_memory

        if is_main:
            print("\n".join(overrides.describe_config(config)))
        keep_freed_memory()
        if dry_run:
            for line in estimate(config):
                print(line, flush=True)
            return
        weights = train(config, resume=resume)
        if is_main:
            print(f"weights: {weights}")


if __name__ == "__main__":
    main()
