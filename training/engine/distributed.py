"""Means over the processes of a run, with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _AllReduceSum(torch.autograd.Function):
    """Sum over processes. Its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def global_mean(values: Tensor) -> Tensor:
    """Return the mean over all processes, a scalar; differentiable. Every process must have equally many values.

    The gradient counts the use of the mean by every process, so that averaging gradients over processes, as
    DistributedDataParallel does, gives the gradient of one process with all photos.
    """
    local = values.mean()
    if not (dist.is_available() and dist.is_initialized()):
        return local
    total: Tensor = _AllReduceSum.apply(local)  # type: ignore[no-untyped-call]
    return total / dist.get_world_size()
