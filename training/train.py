"""Train SCSNet: `python training/train.py --data FOLDER --output RUN`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from training.config import TrainConfig
from training.loop import train


def main(arguments: list[str] | None = None) -> None:
    """Turn options into a config and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resume", action="store_true")
    for field in fields(TrainConfig):
        default = field.default
        if isinstance(default, tuple):
            kind = type(default[0]) if default else int
            parser.add_argument(f"--{field.name}", nargs="*", type=kind, default=default)
        elif isinstance(default, bool):
            parser.add_argument(
                f"--{field.name}", action=argparse.BooleanOptionalAction, default=default
            )
        else:
            parser.add_argument(f"--{field.name}", type=type(default), default=default)
    values = vars(parser.parse_args(arguments))
    resume = values.pop("resume")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    train(TrainConfig(**values), resume)


if __name__ == "__main__":
    main()
