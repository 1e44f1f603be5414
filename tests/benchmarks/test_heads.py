"""The heads of Meta-SR and LIIF in benchmarks/: as large as their papers say, and what they say pixel by pixel."""

from math import floor

import pytest
import torch
import torch.nn.functional as F

from benchmarks.heads import LIIF, MetaSR, cpm
from scsnet.cpm import CPM, build_axis


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_are_the_papers():
    """0.45 M and 0.35 M; CPM on 64 channels, which all three see."""
    assert count(MetaSR()) == 445_120
    assert count(LIIF()) == 346_883
    assert count(CPM(64, 256)) == 346_371


@pytest.fixture
def features():
    torch.manual_seed(3)
    return torch.randn(2, 8, 5, 6)


def patch(features, y, x):
    """(B, C 9): channel by channel, the 3 x 3 neighbourhood row by row, zero outside."""
    return F.pad(features, (1, 1, 1, 1))[:, :, y : y + 3, x : x + 3].flatten(1)


@pytest.mark.parametrize("size", [(10, 12), (13, 17), (4, 5)])
@pytest.mark.parametrize("pixels", [None, 20])
def test_meta_sr(features, size, pixels):
    head = MetaSR(8).requires_grad_(False)
    got = head(features, size, pixels)
    assert got.shape == (2, 3, *size)
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = i * 5 / size[0], j * 6 / size[1]
            offset = torch.tensor([y - floor(y), x - floor(x), 5 / size[0]])
            weights = head.predict(offset).view(72, 3)
            expected = patch(features, floor(y), floor(x)) @ weights
            assert torch.allclose(got[:, :, i, j], expected, atol=1e-4)


@pytest.mark.parametrize("size", [(10, 12), (13, 17)])
def test_liif(features, size, monkeypatch):
    monkeypatch.setattr(LIIF, "PIXELS", 40)
    head = LIIF(8).requires_grad_(False)
    got = head(features, size)
    cell = torch.tensor([2 * 5 / size[0], 2 * 6 / size[1]])
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = (i + 0.5) * 5 / size[0] - 0.5, (j + 0.5) * 6 / size[1] - 0.5
            answers, areas = [], []
            for dy, dx in [(0, 0), (0, 1), (1, 0), (1, 1)]:
                row, column = min(max(floor(y) + dy, 0), 4), min(max(floor(x) + dx, 0), 5)
                offset = torch.tensor([2 * (y - row), 2 * (x - column)])
                query = [patch(features, row, column), offset.expand(2, -1), cell.expand(2, -1)]
                answers.append(head.mlp(torch.cat(query, dim=1)))
                areas.append(abs(float(offset[0] * offset[1])) + 1e-9)
            expected = sum(a * w for a, w in zip(answers, reversed(areas), strict=True)) / sum(
                areas
            )
            assert torch.allclose(got[:, :, i, j], expected, atol=1e-4)


def test_cpm_is_measured_as_it_is_used(features):
    head = CPM(8, 16).requires_grad_(False)
    grids = build_axis(5, 90, 0, 90, "centre"), build_axis(6, 300, 0, 300, "centre")
    expected = head.map(head.fold_first_layer(features), *grids).permute(0, 3, 1, 2)
    assert torch.allclose(cpm(head, features, (90, 300)), expected, atol=1e-5)
