"""The command line of a training run: every field of the config is an option.

argparse and not tyro: a field of a stage can be given for all stages at once (`--batch 8`) or for one
(`--stage2.batch 8`), and the standard library is there in every clone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

from scsnet import SCSNetConfig
from training.config.cli import Parser, add_fields, given
from training.config.stage import Stage
from training.config.train_config import TrainConfig

_ONE_STAGE = re.compile(r"--stage(\d+)\.([a-z-]+)$")


def config_parser(parser: Parser, arguments: Sequence[str], stages: int) -> None:
    """Add every field of a config of so many stages."""
    add_fields(parser, parser.add_argument_group("the run"), TrainConfig)
    text = "each for all stages; --stage2.batch, say, for the second only"
    add_fields(parser, parser.add_argument_group("stages", text), Stage)
    add_fields(parser, parser.add_argument_group("network"), SCSNetConfig, "network.")
    asked = {
        int(m[1]) for w in arguments if (m := _ONE_STAGE.match(Parser.tidy(w).partition("=")[0]))
    }
    if beyond := sorted(number for number in asked if not 1 <= number <= stages):
        parser.error(f"there is no stage {beyond[0]}, this run has {stages} (numbered from 1)")
    for number in sorted(asked):
        add_fields(parser, parser.add_argument_group(), Stage, f"stage{number}.", hide=True)


def apply_overrides(config: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """The config with the options given; ValueError where they make no sense."""
    stages = tuple(
        replace(stage, **(given(values, Stage) | given(values, Stage, f"stage{number}.")))
        for number, stage in enumerate(config.stages, 1)
    )
    fields_of_network = given(values, SCSNetConfig, "network.")
    network = replace(config.network, **fields_of_network)
    changed = replace(config, stages=stages, network=network, **given(values, TrainConfig))
    if changed.init and fields_of_network:
        raise ValueError(
            f"--network.{next(iter(fields_of_network)).replace('_', '-')} makes no sense with init "
            f"{changed.init!r}: that file says what the network is"
        )
    return changed


def describe_config(config: TrainConfig) -> Iterator[str]:
    """The config line by line; of stages and network only what differs from the defaults."""
    for field in fields(config):
        if field.name not in ("stages", "network"):
            yield f"  {field.name:22} {getattr(config, field.name)}"
    parts: list[tuple[str, Any, Any]] = [("network", config.network, SCSNetConfig())]
    parts += [(f"stage {n}", stage, Stage()) for n, stage in enumerate(config.stages, 1)]
    for name, part, default in parts:
        changed = [
            f"{f.name}={getattr(part, f.name)}"
            for f in fields(part)
            if getattr(part, f.name) != getattr(default, f.name)
        ]
        yield f"  {name:22} " + (", ".join(changed) or "as by default")
