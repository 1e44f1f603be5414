"""scsnet info: what is in a weights file."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any


def info(options: argparse.Namespace) -> int:
    """Exit code 0; CommandError for a file that is no weights file."""
    from .. import checkpoint
    from .session import weights_explained

    with weights_explained(options.weights):
        found = checkpoint.read_info(checkpoint.resolve(options.weights))
    facts: dict[str, Any] = {
        field.name: getattr(found, field.name) for field in dataclasses.fields(found)
    }
    facts |= {"path": str(found.path), "config": found.config.to_dict()}
    if options.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False, default=str))
        return 0
    config, card = facts.pop("config"), facts.pop("card")
    for name, value in facts.items():
        print(f"{name:12}{f'{value:,}' if isinstance(value, int) else value}")
    _section("config", config)
    _section("training card", card)
    sys.stdout.flush()  # a closed pipe shows here, not at exit
    return 0


def _section(title: str, values: dict[str, Any]) -> None:
    print(f"\n{title}" + ("" if values else ": none"))
    width = max(map(len, values), default=0) + 2
    for name, value in values.items():
        text = (
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        )
        print(f"  {name:{width}}{text}")
