"""What encode and decode cost: operations and bytes counted, the same on every machine."""

import pytest
import torch
from meters import Peak, Work

import scsnet.model
from scsnet import SCSNet, SCSNetConfig, onednn

LINEARS = 2 * 256 * 256 + 3 * 256  # multiplications per output pixel that no trick removes


@pytest.fixture(autouse=True)
def try_operators(tiny_net):
    """The network tries oneDNN's operators once in a process; here before anything is counted."""
    tiny_net.encode(torch.rand(1, 1, 8, 8))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return SCSNet().eval().requires_grad_(False)


def encode_work(net, side, **options):
    with torch.no_grad(), Work() as work:
        features = net.encode(torch.rand(1, 1, side, side), **options)
    return work, features


def decode_work(net, features, size, window=None):
    with torch.no_grad(), Work() as work:
        net.decode(features, size, window)
    return work


def test_decode_costs_little_more_than_the_linear_layers_of_its_pixels(net):
    _, features = encode_work(net, 64)
    work = decode_work(net, features, (256, 256))
    assert LINEARS <= work.products / 256**2 <= 1.25 * LINEARS
    # F_cs once, at source size: 128 -> 256 channels, the first linear layer inside of it
    assert work.convolutions == 64**2 * 128 * 256 * 9


def test_a_second_size_runs_nothing_of_the_encoder(net):
    first, features = encode_work(net, 40)
    assert first.kernels[64, 64, 3, 3] == 3 + 32  # phi_E, psi_E
    for size in [(160, 160), (90, 61), (20, 20)]:
        work = decode_work(net, features, size)
        assert work.kernels == {(256, 128, 3, 3): 1}, work.kernels
        assert work.attention == 0


def test_a_window_costs_its_own_pixels(net):
    _, features = encode_work(net, 64)
    small = decode_work(net, features, (16384, 16384), (5000, 7000, 64, 64))
    large = decode_work(net, features, (16384, 16384), (5000, 7000, 256, 256))
    near = decode_work(net, features, (16384, 16384), (0, 0, 64, 64))
    assert small.total < 2 * 64**2 * LINEARS
    assert large.products < 17 * small.products
    assert near.total == pytest.approx(small.total, rel=0.5)
    whole = decode_work(net, features, (512, 512))
    part = decode_work(net, features, (512, 512), (100, 200, 128, 128))
    assert part.total < whole.total / 10


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


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_fused_operators_change_nothing(monkeypatch, dtype, tolerance):
    if dtype not in onednn.FORMATS:
        pytest.skip(f"no {dtype} in hardware here")
    torch.manual_seed(2)
    net = SCSNet(SCSNetConfig(depth=2)).eval().requires_grad_(False)
    for block in net.texture_encoder.blocks:
        torch.nn.init.normal_(block.conv2.weight, std=0.05)
    net = net.to(dtype)
    luminance = torch.rand(2, 1, 36, 28) * 2 - 1

    def work():
        return net.decode(net.encode(luminance), (141, 300))

    fused = work()
    monkeypatch.setattr(onednn, "FORMATS", frozenset())
    plain = work()
    assert (fused - plain).abs().max() <= tolerance * plain.abs().max()
    assert not torch.equal(fused, plain)  # both ways were taken
