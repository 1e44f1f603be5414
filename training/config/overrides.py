"""The command line of a training run: every field of the config is an option.

A field of a stage can be given for all stages (`--batch 8`) or for one (`--stage2.batch 8`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from scsnet import SCSNetConfig
from training.config.cli import Parser, add_fields, documentation, format_value, given
from training.config.stage import Stage
from training.config.train_config import TrainConfig

CONFIG = "config.json"  # in the folder of a run
_ONE_STAGE = re.compile(r"--stage(\d+)\.")


def config_parser(parser: Parser, words: Sequence[str], stages: int) -> None:
    """Add an option for every field of a config with this number of stages; `words` are tidy arguments (`Parser.tidy`)."""
    add_fields(parser.add_argument_group("the run"), TrainConfig)
    text = "for all stages; for one of them as --stage2.batch; defaults differ by preset"
    add_fields(parser.add_argument_group("stages", text), Stage)
    add_fields(parser.add_argument_group("network"), SCSNetConfig, "network.")
    for number in sorted({int(m[1]) for word in words if (m := _ONE_STAGE.match(word))}):
        if not 1 <= number <= stages:
            parser.error(f"expected a stage from 1 to {stages}, got {number}")
        add_fields(parser.add_argument_group(), Stage, f"stage{number}.", hide=True)


def apply_overrides(config: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """Return the config with the options that were given. Raises ValueError for invalid combinations."""
    stages = []
    for number, stage in enumerate(config.stages, 1):
        changes = given(values, Stage) | given(values, Stage, f"stage{number}.")
        try:
            stages.append(replace(stage, **changes))
        except ValueError as error:
            raise ValueError(f"stage {number}: {error}") from error
    fields_of_network = given(values, SCSNetConfig, "network.")
    network = replace(config.network, **fields_of_network)
    changed = replace(config, stages=tuple(stages), network=network, **given(values, TrainConfig))
    if changed.init and fields_of_network:
        raise ValueError(
            f"--network.{next(iter(fields_of_network)).replace('_', '-')} cannot be used with --init "
            f"{changed.init!r}, whose file contains the architecture"
        )
    return changed


def describe_config(config: TrainConfig) -> Iterator[str]:
    """Yield the config as lines of text; of stages and network only what differs from the defaults."""
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


def load_config(path: Path) -> TrainConfig:
    """Read a config.json. Raises ValueError if it is missing or holds something else."""
    try:
        return TrainConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ValueError(f"Config not found: {path}") from error
    except (ValueError, TypeError, AttributeError, OSError) as error:  # any JSON may be in it
        raise ValueError(f"{path} is not a usable config: {error}") from error


def check_same_options(row: str, folder: Path, options: Mapping[str, Any]) -> None:
    """Raise ValueError if the row of a table that was trained in a folder had other options."""
    path = folder / CONFIG
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        now = json.loads(json.dumps(options))  # tuples become lists
        if changed := [name for name, value in now.items() if before.get(name) != value]:
            raise ValueError(
                f"row {row!r} in {folder} was trained with another {changed[0]}: use another --output"
            )


def format_options() -> str:
    """Return Markdown tables of all options with their defaults."""
    sections = (
        ("The run", TrainConfig, "", "Defaults of `TrainConfig`; presets change some of them."),
        ("Stages", Stage, "", "For all stages, or for one of them as `--stage2.batch`."),
        ("Network", SCSNetConfig, "network.", "Architecture of a new network."),
    )
    lines = [
        "# Options of `training/train.py`",
        "",
        "Printed by `python training/train.py --options-table`.",
    ]
    for title, cls, prefix, text in sections:
        lines += ["", f"## {title}", "", text, "", "| option | default | |", "|---|---|---|"]
        docs = documentation(cls)
        for field in fields(cls):
            if field.name not in docs or field.name in ("stages", "network"):
                continue
            default = format_value(getattr(cls(), field.name)) or "(empty)"
            name = f"--{prefix}{field.name.replace('_', '-')}"
            lines.append(f"| `{name}` | {default} | {docs[field.name]} |".replace("|ab|", "abs ab"))
    return "\n".join(lines)
