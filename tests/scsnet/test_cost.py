"""What encode and decode cost: operations and bytes counted, the same on every machine."""

import pytest
import torch
from meters import Peak, count_operations

import scsnet.model
from scsnet import SCSNet

aten = torch.ops.aten
LINEARS = 2 * (2 * 256 * 256 + 3 * 256)  # operations per output pixel that no trick removes


@pytest.fixture(autouse=True)
def try_operators(tiny_net):
    """The network tries oneDNN's operators once in a process; here before anything is counted."""
    tiny_net.encode(torch.rand(1, 1, 8, 8))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return SCSNet().eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(256, 256), (150, 97), (30, 30)])
def test_decode_costs_little_more_than_the_linear_layers_of_its_pixels(net, size):
    """Nothing of the encoder runs again for another size."""
    features = net.encode(torch.rand(1, 1, 64, 64))
    counts = count_operations(lambda: net.decode(features, size))
    # F_cs once, at source size: 128 -> 256 channels, the first linear layer inside of it
    assert counts.pop(aten.convolution) == 2 * 64**2 * 128 * 256 * 9
    if size == (256, 256):
        assert LINEARS <= sum(counts.values()) / 256**2 <= 1.25 * LINEARS


def test_a_window_costs_its_own_pixels(net):
    features = net.encode(torch.rand(1, 1, 64, 64))

    def cost(side):
        window = (5000, 7000, side, side)
        return sum(count_operations(lambda: net.decode(features, (2**14, 2**14), window)).values())

    assert cost(64) < 2 * 64**2 * LINEARS
    assert cost(256) < 17 * cost(64)


def test_memory_of_decode_beside_its_result_does_not_grow(tiny_net):
    with torch.no_grad():
        features = tiny_net.encode(torch.rand(1, 1, 100, 100))
        beside = []
        for side in (400, 1200, 2400):
            with Peak() as used:
                tiny_net.decode(features, (side, side))
            beside.append(used.peak - 3 * 4 * side**2)
    assert max(beside) < 1.5 * min(beside), beside
    # not even all features of a block's row of output pixels
    assert max(beside) < 2400 * 32 * 4 * 64


def test_memory_of_encode_beside_its_result_is_that_of_a_tile(tiny_net, monkeypatch):
    monkeypatch.setattr(scsnet.model, "KEPT_TEXTURE", 2**40)
    beside = []
    for side in (256, 512):
        with torch.no_grad(), Peak() as used:
            features = tiny_net.encode(torch.rand(1, 1, side, side), tile=64)
        kept = features.nbytes + features.color.nbytes
        beside.append(used.peak - kept)
    assert beside[1] < 1.5 * beside[0] + 2**20, beside
