"""Collectives of the trainer; with a single process they do nothing."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Sum(torch.autograd.Function):
    """Sum over processes; so is its gradient."""

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
    """The mean over all processes, all with as many values; gradients pass through.

    Its gradient counts every process's use of the mean, so that averaging gradients over processes, as
    DistributedDataParallel does, gives what one process with all pictures would get.
    """
    local = values.mean()
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return local
    total: Tensor = _Sum.apply(local)  # type: ignore[no-untyped-call]
    return total / dist.get_world_size()


def is_main_process() -> bool:
    """Whether this is the process that writes and prints."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def average_over_processes(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes, without gradients."""
    with torch.no_grad():
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= dist.get_world_size()
    return values


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process; every process has to call it, and gets the same answer."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def find_difference(module: nn.Module) -> str:
    """Name of the first parameter that is not the same in all processes; empty if all agree."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return ""
    different = ""
    for name, parameter in module.named_parameters():
        first = parameter.detach().clone()
        dist.broadcast(first, 0)
        if not different and any_process(
            not torch.equal(first, parameter.detach()), parameter.device
        ):
            different = name
    return different
