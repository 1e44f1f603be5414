"""What `SCSNet.encode` hands to `SCSNet.decode`, and what it keeps of references."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from .attention import KeysValues

T = TypeVar("T")


def list_tensors(value: object) -> Iterator[Tensor]:
    """Every tensor inside of (nested) dataclasses and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from list_tensors(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from list_tensors(getattr(value, field.name))


def move_features(value: T, device: torch.device | str) -> T:
    """A copy of (nested) dataclasses and tuples with every tensor on `device`."""
    result: Any = value
    if isinstance(value, Tensor):
        result = value.to(device)
    elif isinstance(value, tuple):
        items: list[Any] = [move_features(item, device) for item in value]
        result = tuple(items)
    elif is_dataclass(value) and not isinstance(value, type):
        changes = {
            field.name: move_features(getattr(value, field.name), device) for field in fields(value)
        }
        result = replace(value, **changes)
    return result


@dataclass(frozen=True)
class ReferenceFeatures:
    """Keys and values of one or several references, for any number of source pictures."""

    keys_values: tuple[KeysValues, ...]
    """One per level of the cross attention."""

    @property
    def batch(self) -> int:
        """1: shared by every source picture; otherwise one per picture of the batch."""
        return self.keys_values[0].value.shape[0]

    @property
    def count(self) -> int:
        """How many references each source picture has."""
        return len(self.keys_values[0].grids)

    @property
    def nbytes(self) -> int:
        """Memory taken by the tensors, in bytes."""
        return sum(t.nbytes for t in list_tensors(self))

    def to(self, device: torch.device | str) -> ReferenceFeatures:
        """The same on another device."""
        return move_features(self, device)


@dataclass(frozen=True)
class Features:
    """A picture, encoded: everything left of CPM in Fig. 3. Decode it as often as you like."""

    luminance: Tensor
    """The input's L (B, 1, Hs, Ws), normalised, float32."""
    color: Tensor
    """F_color (B, 64, h, w) at the working size."""
    source: Tensor
    """F_s (B, 256, h/4, w/4), what the attention pictures need."""
    texture: Tensor | None
    """F_tex (B, 64, Hs, Ws); None for a large picture, whose tiles `decode` makes as it needs them."""
    reference: ReferenceFeatures | None
    """The references that F_color was made with."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the source picture."""
        return self.luminance.shape[2], self.luminance.shape[3]

    @property
    def nbytes(self) -> int:
        """Memory taken by the tensors, in bytes."""
        return sum(t.nbytes for t in list_tensors(self))

    def to(self, device: torch.device | str) -> Features:
        """The same on another device."""
        return move_features(self, device)
