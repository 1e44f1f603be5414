"""The weights that the implementations of CPM need."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Linear(NamedTuple):
    """Weight (outputs, inputs) and bias (outputs,) of a linear layer."""

    weight: Tensor
    bias: Tensor


class Parameters(NamedTuple):
    """Weights of CPM beside the folded first layer."""

    coordinates: Tensor
    """(C, 2): the columns of the first linear layer that belong to Z, x before y."""
    layers: tuple[Linear, ...]
    """The linear layers 256 -> 256 -> 256 -> 3 that follow."""

    def tensors(self) -> list[Tensor]:
        """Return all weights and biases."""
        return [self.coordinates, *(tensor for layer in self.layers for tensor in layer)]

    def to(self, dtype: torch.dtype) -> Parameters:
        """Return the weights in another dtype."""
        layers = tuple(Linear(*(tensor.to(dtype) for tensor in layer)) for layer in self.layers)
        return Parameters(self.coordinates.to(dtype), layers)
