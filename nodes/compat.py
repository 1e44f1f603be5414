"""io.Schema for every host since 0.3.64: fields that an older host lacks are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from comfy_api.latest import io

_SCHEMA_FIELDS = {field.name for field in fields(io.Schema)}


def make_schema(
    *, inputs: Sequence[io.Input], advanced: Sequence[str] = (), **values: object
) -> io.Schema:
    """Make a node's schema. `advanced` names the inputs that newer frontends fold away."""
    for item in inputs:
        if item.id in advanced:
            # Input takes `advanced` as a keyword since 0.10; extra_dict reaches the frontend from every host.
            item.extra_dict["advanced"] = True
    return io.Schema(
        inputs=list(inputs),
        **{name: value for name, value in values.items() if name in _SCHEMA_FIELDS},
    )
