"""The command line of a training run: every field of the config is an option.

A field of a stage can be given for all stages (`--batch 8`) or for one (`--stage2.batch 8`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from scsnet import SCSNetConfig
from training.config.cli import Parser, add_fields, format_value, read_field_docs, select_given
from training.config.stage import Stage
from training.config.train_config import TrainConfig

CONFIG = "config.json"  # in the folder of a run


def add_config_options(parser: Parser, words: Sequence[str]) -> None:
    """Add an option for every field of a config, and for those of the single stages that the arguments name."""
    add_fields(parser.add_argument_group("the run"), TrainConfig)
    text = "for all stages; for one of them as --stage2.batch; defaults differ by preset"
    add_fields(parser.add_argument_group("stages", text), Stage)
    add_fields(parser.add_argument_group("network"), SCSNetConfig, "network.")
    for prefix in sorted(set(re.findall(r"--(stage\d+\.)", " ".join(words)))):
        add_fields(parser.add_argument_group(), Stage, prefix, hide=True)


def apply_overrides(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Return the config with the options that were given. Raises ValueError for invalid combinations."""
    changed = config.to_dict()
    known = {f"stage{number}": stage for number, stage in enumerate(changed["stages"], 1)}
    for name, stage in known.items():
        stage |= select_given(values, Stage) | select_given(values, Stage, f"{name}.")
    named = {name.split(".")[0] for name in values if re.match(r"stage\d+\.", name)}
    if others := named - known.keys():
        raise ValueError(f"expected a stage from 1 to {len(known)}, got {min(others)[5:]}")
    network = select_given(values, SCSNetConfig, "network.")
    changed["network"] |= network
    changed |= select_given(values, TrainConfig)
    if changed["init"] and network:
        option = f"--network.{next(iter(network)).replace('_', '-')}"
        init = f"--init {changed['init']!r}, whose file contains the architecture"
        raise ValueError(f"{option} cannot be used with {init}")
    return TrainConfig.from_dict(changed)


def describe_config(config: TrainConfig) -> Iterator[str]:
    """Yield lines of text about the config: what differs from the defaults."""
    parts: dict[str, Any] = {"run": config, "network": config.network}
    parts |= {f"stage {number}": stage for number, stage in enumerate(config.stages, 1)}
    for name, part in parts.items():
        default = type(part)()
        names = [field.name for field in fields(part) if field.name not in ("stages", "network")]
        values = [(name, getattr(part, name)) for name in names]
        changed = [f"{name}={value!r}" for name, value in values if value != getattr(default, name)]
        yield f"{name}: " + (", ".join(changed) or "defaults")


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
            problem = f"row {row!r} in {folder} was trained with another {changed[0]}"
            raise ValueError(f"{problem}: use another --output")


def format_options() -> str:
    """Return Markdown tables of all options with their defaults."""
    sections = (
        ("The run", TrainConfig, "", "Defaults of `TrainConfig`; presets change some of them."),
        ("Stages", Stage, "", "For all stages, or for one of them as `--stage2.batch`."),
        ("Network", SCSNetConfig, "network.", "Architecture of a new network."),
    )
    lines = ["# Options of `training/train.py`", ""]
    lines += ["Printed by `python training/train.py --options-table`."]
    for title, cls, prefix, text in sections:
        lines += ["", f"## {title}", "", text, "", "| option | default | |", "|---|---|---|"]
        docs = read_field_docs(cls)
        for field in fields(cls):
            if field.name in docs and field.name not in ("stages", "network"):
                default = format_value(field.default) or "(empty)"
                text = docs[field.name].replace("|ab|", "abs ab")
                name = f"--{prefix}{field.name.replace('_', '-')}"
                lines.append(f"| `{name}` | {default} | {text} |")
    return "\n".join(lines)
