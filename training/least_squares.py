"""A convolution fitted by least squares: no gradient, no steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PARTS = 8  # photos at a time
SAMPLES = 600  # positions of a photo that a convolution is fitted on
RIDGE = 1e-5  # against columns that say the same, relative to the mean square


def in_parts(step: Callable[[Tensor], Tensor], planes: Tensor) -> Tensor:
    """`step` of (N, ...), a few at a time."""
    return torch.cat([step(part) for part in planes.split(PARTS)])


@torch.no_grad()
def fit(conv: nn.Conv2d, seen: Tensor, wanted: Tensor, generator: torch.Generator) -> None:
    """`conv` (3x3) of `seen` (N, C, H, W) becomes `wanted` (N, D, H / stride, W / stride)."""
    columns = conv.weight[0].numel() + 1
    products = torch.zeros(columns, columns + conv.out_channels, dtype=torch.float64)
    for x, y in zip(seen.split(PARTS), wanted.split(PARTS), strict=True):
        patches = F.unfold(x, 3, padding=1, stride=conv.stride)
        rows = patches.mT.flatten(0, 1)  # (N, C k k, H W) -> (N H W, C k k)
        targets = y.flatten(2).mT.flatten(0, 1)  # (N, D, H, W) -> (N H W, D)
        picked = torch.randperm(len(rows), generator=generator)[: SAMPLES * len(x)]
        ones = rows.new_ones(len(picked), 1)
        rows, targets = torch.cat([rows[picked], ones], 1), targets[picked]
        products += (rows.T @ torch.cat([rows, targets], 1)).double()
    solve(conv, products[:, :columns], products[:, columns:])


@torch.no_grad()
def solve(conv: nn.Conv2d, squares: Tensor, mixed: Tensor) -> None:
    """`conv` becomes what its inputs X, a column each and one of ones, and its outputs Y ask for.

    `squares` (K, K) = X^T X, `mixed` (K, D) = X^T Y, float64.
    """
    ridge = RIDGE * squares.diagonal().mean()
    identity = torch.eye(len(squares), dtype=torch.float64, device=squares.device)
    solved = torch.linalg.solve(squares + ridge * identity, mixed).float()
    assert conv.bias is not None
    conv.weight.copy_(solved[:-1].T.reshape(conv.weight.shape))
    conv.bias.copy_(solved[-1])
