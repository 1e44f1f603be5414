"""Operation counts of the benchmark against those that PyTorch counts while the network runs."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import operations
from benchmarks.roofline import Ceiling, bound
from scsnet import SCSNet, SCSNetConfig, onednn

aten = torch.ops.aten
CONFIG = SCSNetConfig(width=8, depth=3, working_size=24)


@pytest.fixture
def net(monkeypatch):
    monkeypatch.setattr(onednn, "FORMATS", frozenset())  # operators that PyTorch does not count
    return SCSNet(CONFIG).eval().requires_grad_(False)


def counted(function):
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        function()
    return counter.get_flop_counts()["Global"]


@pytest.mark.parametrize("size", [(16, 16), (24, 24), (30, 41), (22, 18)])
def test_encode_is_counted_right(net, size):
    counts = counted(lambda: net.encode(torch.rand(1, 1, *size)))
    parts = [
        *operations.texture(CONFIG, size[0] * size[1]),
        *operations.colour(CONFIG, size, CONFIG.working_size),
    ]
    attention = sum(p.operations for p in parts if p.name == "attention")
    rest = sum(p.operations for p in parts) - attention
    assert counts.pop(aten.convolution) == rest
    # Run with the query once for each of four slices of the values: 8 instead of 5 products.
    assert sum(counts.values()) == attention // 5 * 8
    assert operations.encode(CONFIG, size).operations == rest + attention


@pytest.mark.parametrize(("source", "size"), [((16, 16), (64, 64)), ((30, 41), (45, 100))])
def test_decode_is_counted_right(net, source, size):
    features = net.encode(torch.rand(1, 1, *source))
    counts = counted(lambda: net.decode(features, size))
    layers = counts[aten.convolution] + counts[aten.addmm]  # not: interpolation, folding of weights
    assert operations.decode(CONFIG, source, size).operations == layers


def test_guard_of_the_full_model(monkeypatch):
    """What 128 -> 512 needs, and that a decode runs little else; seconds are another matter."""
    config = SCSNetConfig()
    assert operations.encode(config, (128, 128)).operations == 68_011_819_008
    assert operations.decode(config, (128, 128), (512, 512)).operations == 78_785_806_336
    monkeypatch.setattr(onednn, "FORMATS", frozenset())
    net = SCSNet(SCSNetConfig(depth=0)).eval().requires_grad_(False)
    features = net.encode(torch.rand(1, 1, 32, 32))
    whole = sum(counted(lambda: net.decode(features, (128, 128))).values())
    needed = operations.decode(config, (32, 32), (128, 128)).operations
    assert whole < 1.15 * needed  # interpolation as products of matrices, and folding
    part = sum(counted(lambda: net.decode(features, (512, 512), (100, 200, 64, 64))).values())
    assert part < 1.3 * whole / 4  # as many pixels as it has, however large the grid


def test_bytes_of_a_layer():
    layer = operations.convolution("", 3, 5, 100, stride=2)
    assert layer.values == 100 * 4 * 3 + 100 * 5 + 5 * 3 * 9 + 5
    assert layer.bytes(2) == 2 * layer.values
    decode = operations.decode(CONFIG, (2, 2), (4, 4))
    assert decode.planes == 4 + 3 * 16


def test_bound_is_the_larger_of_the_two():
    work = operations.Work("", operations=1000, values=10)
    assert bound(work, 2, 4, Ceiling(100.0, 1e9)) == 20.0
    assert bound(work, 2, 4, Ceiling(1e9, 8.0)) == 10.0


def test_other_heads_are_refused():
    with pytest.raises(ValueError, match='expected a network with head="cpm"'):
        operations.decode(SCSNetConfig(head="pixel_shuffle"), (4, 4), (16, 16))
