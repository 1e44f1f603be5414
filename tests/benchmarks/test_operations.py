"""Operation counts of the benchmark against those that PyTorch counts while the network runs."""

import pytest
import torch
from meters import count_operations

from benchmarks import operations
from scsnet import SCSNet, SCSNetConfig

aten = torch.ops.aten
CONFIG = SCSNetConfig(width=8, depth=3, working_size=24)


@pytest.fixture
def net():
    return SCSNet(CONFIG).eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(16, 16), (24, 24), (30, 41), (22, 18)])
def test_operations_of_encode_are_those_that_pytorch_counts(net, size):
    counts = count_operations(lambda: net.encode(torch.rand(1, 1, *size)))
    parts = operations.colour(CONFIG, size, CONFIG.working_size)
    attention = sum(p.operations for p in parts if p.name == "attention")
    # Run with the query once for each of four slices of the values: 8 instead of 5 products.
    convolutions = counts.pop(aten.convolution)
    assert sum(counts.values()) == attention // 5 * 8
    assert operations.encode(CONFIG, size).operations == convolutions + attention


@pytest.mark.parametrize(("source", "size"), [((16, 16), (64, 64)), ((30, 41), (45, 100))])
def test_operations_of_decode_are_those_that_pytorch_counts(net, source, size):
    features = net.encode(torch.rand(1, 1, *source))
    counts = count_operations(lambda: net.decode(features, size))
    layers = counts[aten.convolution] + counts[aten.addmm]  # not: interpolation, folding of weights
    assert operations.decode(CONFIG, source, size).operations == layers
