"""Train SCSNet: `python training/train.py --data PHOTOS --output RUN [--preset laptop] [--FIELD VALUE ...]`.

Goes on with a run: `python training/train.py --output RUN --resume`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

try:
    import accelerate  # noqa: F401
    import tqdm  # noqa: F401
except ImportError as error:
    sys.exit(f"train.py: {error}; pip install -r training/requirements.txt")

from training.config import TrainConfig
from training.config.cli import Parser
from training.config.overrides import apply_overrides, config_parser, describe_config
from training.config.presets import PRESETS
from training.engine.checkpoints import RunError
from training.engine.distributed import is_main_process
from training.engine.dry_run import describe_data, measure, without_files
from training.engine.loop import read_config, train
from training.engine.malloc import keep_freed_memory


def read_options(arguments: Sequence[str] | None) -> tuple[TrainConfig, bool, bool]:
    """Options -> config, resume, dry run. Ends the program where they make no sense."""
    words = [Parser.tidy(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    parser = Parser(prog="train.py", description=__doc__, epilog=presets_help())
    parser.option(
        parser,
        "--preset",
        choices=tuple(PRESETS),
        help="the config to start from; laptop unless named",
    )
    parser.option(parser, "--resume", action="store_true", help="go on with the run in --output")
    parser.option(
        parser,
        "--dry-run",
        action="store_true",
        help="look at the data, tell time and memory, and stop",
    )
    # How many stages there are decides which options there are.
    peek = Parser(add_help=False)
    for name in ("--preset", "--output"):
        peek.option(peek, name, default="", type=os.path.expanduser)
    peeked, _ = peek.parse_known_args(words)
    resumes = "--resume" in words
    if resumes and not peeked.output:
        parser.error("--output is missing: the folder of the run to go on with")
    try:
        if resumes:
            config = read_config(Path(peeked.output))
        else:
            config = PRESETS.get(peeked.preset, PRESETS["laptop"])()
        config_parser(parser, words, len(config.stages))
        options = parser.parse(words)
        config = apply_overrides(config, vars(options))
    except (ValueError, RunError) as error:
        parser.error(str(error))
    if resumes and options.preset:
        print(f"--resume: the run's own config.json counts, not --preset {options.preset}")
    if not config.data:
        parser.error("--data is missing: the photos to train on")
    if not config.output and not options.dry_run:
        parser.error("--output is missing: the folder of the run")
    return config, options.resume, options.dry_run


def presets_help() -> str:
    """The presets, each with its first sentence."""
    lines = [
        f"  {name:10}{(function.__doc__ or '').splitlines()[0]}"
        for name, function in PRESETS.items()
    ]
    return "\n".join(["presets:", *lines])


def main(arguments: Sequence[str] | None = None) -> None:
    """Options -> config -> print -> save -> one call."""
    config, resume, dry_run = read_options(arguments)
    try:
        if is_main_process():
            print("\n".join(describe_config(config)))
        keep_freed_memory()
        if dry_run:
            for line in describe_data(config):
                print(line)
            for line in measure(without_files(config)):
                print(line, flush=True)
        else:
            print(f"weights: {train(config, resume=resume)}")
    except (RunError, ValueError, OSError) as error:
        sys.exit(f"train.py: {error}")


if __name__ == "__main__":
    main()
