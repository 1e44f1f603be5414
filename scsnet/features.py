"""Features of a picture and of its references: the results of `SCSNet.encode` and `SCSNet.encode_reference`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from .attention import KeysValues
from .tiling import Window

T = TypeVar("T")


def list_tensors(value: object) -> Iterator[Tensor]:
    """Yield every tensor inside (nested) dataclasses and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from list_tensors(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from list_tensors(getattr(value, field.name))


def move_features(value: T, device: torch.device | str) -> T:
    """Return a copy of (nested) dataclasses and tuples with every tensor on `device`."""
    result: Any = value
    if isinstance(value, Tensor):
        result = value.to(device)
    elif isinstance(value, tuple) and not isinstance(value, Window):
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
    """Encoded references, one or several, for any number of source pictures."""

    keys_values: tuple[KeysValues, ...]
    """Keys and values, one per level of the cross attention."""
    marks: tuple[tuple[Tensor, Tensor], ...] = ()
    """Masked references, normalised LAB (1 or B, 3, h, w) at the working size, and their masks (1 or B, 1, h, w) of 0 and 1."""

    @property
    def batch(self) -> int:
        """Batch size: 1 if every source picture shares the references."""
        return self.keys_values[0].value.shape[0]

    @property
    def count(self) -> int:
        """Number of references of each source picture."""
        return len(self.keys_values[0].grids)

    @property
    def nbytes(self) -> int:
        """Size of the tensors in bytes."""
        return sum(t.nbytes for t in list_tensors(self))

    def to(self, device: torch.device | str) -> ReferenceFeatures:
        """Return a copy on another device."""
        return move_features(self, device)


@dataclass(frozen=True)
class Features:
    """An encoded picture: the outputs of everything before CPM in Fig. 3."""

    luminance: Tensor
    """The input's L (B, 1, Hs, Ws), normalised, float32."""
    color: Tensor
    """F_color (B, 64, h, w) at the working size, in the dtype of the weights."""
    source: Tensor
    """F_s (B, 256, h/4, w/4), for `SCSNet.attention` and `SCSNet.valves`."""
    texture: Tensor | None
    """F_tex (B, 64, Hs, Ws); None for a large picture, for which `decode` computes it tile by tile."""
    reference: ReferenceFeatures | None
    """The references that F_color was computed with."""
    inside: Window | None = None
    """What F_color and F_s cover of the picture, in its pixels; None: all of it. The rest is a margin without colours."""
    color_shift: Tensor | None = None
    """(B, 2, h, w) of any size, normalised, float32: what `decode` adds to a and b, as hints and `SteadyColors` ask for; None: nothing."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the source picture."""
        return self.luminance.shape[2], self.luminance.shape[3]

    @property
    def nbytes(self) -> int:
        """Size of the tensors in bytes."""
        return sum(t.nbytes for t in list_tensors(self))

    def to(self, device: torch.device | str) -> Features:
        """Return a copy on another device."""
        return move_features(self, device)
