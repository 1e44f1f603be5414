"""What the implementations of CPM need of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn


class Parameters(NamedTuple):
    """Weights of CPM beside the folded first layer."""

    coordinates: Tensor
    """(C, 2): the columns of the first linear layer that belong to Z, x before y."""
    layers: Sequence[nn.Linear]
    """The linear layers 256 -> 256 -> 256 -> 3 that follow."""

    def tensors(self) -> list[Tensor]:
        """Return all weights and biases."""
        return [self.coordinates, *(t for layer in self.layers for t in (layer.weight, layer.bias))]
