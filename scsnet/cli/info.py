"""scsnet info: print what a weights file holds."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from typing import Any


def info(options: argparse.Namespace) -> int:
    """Print the facts of a weights file, as text or JSON. Exit code 0; CommandError for a bad file."""
    from .. import checkpoint
    from .output import print_text
    from .session import explain_checkpoint_error

    with explain_checkpoint_error(options.weights):
        weights = checkpoint.read_info(checkpoint.resolve(options.weights))
    facts: dict[str, Any] = {
        field.name: getattr(weights, field.name) for field in dataclasses.fields(weights)
    }
    facts |= {"path": str(weights.path), "config": weights.config.to_dict()}
    if options.json:  # ASCII: valid JSON in any encoding of stdout
        print_text(json.dumps(facts, indent=2, default=str))
        return 0
    config, card = facts.pop("config"), facts.pop("card")
    lines = []
    for name, value in facts.items():
        text = f"{value:,}" if isinstance(value, int) else escape_control_characters(str(value))
        lines.append(f"{name:12}{text}")
    lines += [*_section("config", config), *_section("training card", card)]
    print_text("\n".join(lines))
    return 0


def escape_control_characters(text: str) -> str:
    """Replace what a terminal would obey (escape sequences, line breaks, bidirectional marks) by `\\x1b` and the like."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _section(title: str, values: dict[str, Any]) -> Iterator[str]:
    yield f"\n{title}" + ("" if values else ": none")
    names = [escape_control_characters(name) for name in values]
    width = max(map(len, names), default=0) + 2
    for name, value in zip(names, values.values(), strict=True):
        text = (
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        )
        yield f"  {name:{width}}{escape_control_characters(text)}"
