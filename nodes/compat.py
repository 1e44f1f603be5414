"""io.Schema for every host since 0.3.64: what an older one does not know yet is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from comfy_api.latest import io

_KNOWN = {field.name for field in fields(io.Schema)}


def schema(
    *, inputs: Sequence[io.Input], advanced: Sequence[str] = (), **values: object
) -> io.Schema:
    """A node's schema. `advanced`: inputs that newer frontends fold away; older ones show them."""
    for item in inputs:
        if item.id in advanced:
            item.extra_dict["advanced"] = (
                True  # a keyword of Input since 0.10, sent to every frontend this way
            )
    return io.Schema(
        inputs=list(inputs), **{name: value for name, value in values.items() if name in _KNOWN}
    )
