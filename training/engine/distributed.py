"""Collectives over the processes of a run. In a run of one process each returns its argument."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main_process() -> bool:
    """Return whether this process writes and prints."""
    return world_size() == 1 or dist.get_rank() == 0


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
    if world_size() == 1:
        return local
    total: Tensor = _AllReduceSum.apply(local)  # type: ignore[no-untyped-call]
    return total / world_size()


@torch.no_grad()
def average_over_processes(values: Tensor) -> Tensor:
    """Return the elementwise mean of a tensor over all processes, without gradients."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
        values /= world_size()
    return values


def any_process(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set in any process."""
    if world_size() == 1:
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())


def is_equal_everywhere(value: Tensor) -> bool:
    """Return whether a scalar tensor has the same value in all processes."""
    if world_size() == 1:
        return True
    bounds = torch.stack([value, -value])
    dist.all_reduce(bounds, dist.ReduceOp.MAX)
    return bool(bounds[0] == -bounds[1])
