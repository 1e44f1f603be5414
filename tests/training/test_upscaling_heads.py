"""RDN and the heads of Tables 6 and 7: as large as their papers say, and what they say pixel by pixel."""

from math import floor

import pytest
import torch
import torch.nn.functional as F

from scsnet.cpm import build_axis
from training.config.upscaling import SIZES
from training.models.rdn import RDN, ResidualDenseBlock, Upscaler
from training.models.upscaling_heads import LIIF, ROWS, ContinuousPixelMapping, MetaSR, SubPixel


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_are_the_papers():
    """0.45 M and 0.35 M in Table 7; CPM on 64 channels, which all three see."""
    assert count(MetaSR()) == 445_120
    assert count(LIIF()) == 346_883
    assert count(ContinuousPixelMapping()) == 346_371


@pytest.mark.parametrize(("factor", "millions"), [(2, 22.12), (3, 22.31), (4, 22.27)])
def test_rdn_has_the_parameters_of_its_authors_models(factor, millions):
    """As counted in later papers, among them RCAN and SAN for x2 to x4: D = 16, C = 8, G = G0 = 64."""
    with torch.device("meta"):
        net = Upscaler(f"sub-pixel x{factor}", SIZES["paper"])
    assert round(count(net) / 1e6, 2) == millions


def test_a_dense_block_sees_all_layers_before():
    torch.manual_seed(0)
    block = ResidualDenseBlock(4, 3, 2).requires_grad_(False)
    x = torch.randn(1, 4, 6, 7)
    a = F.conv2d(x, block.layers[0].weight, block.layers[0].bias, padding=1).relu()
    b = F.conv2d(torch.cat([x, a], 1), block.layers[1].weight, block.layers[1].bias, padding=1)
    b = b.relu()
    c = F.conv2d(torch.cat([x, a, b], 1), block.layers[2].weight, block.layers[2].bias, padding=1)
    whole = torch.cat([x, a, b, c.relu()], 1)
    expected = x + F.conv2d(whole, block.fuse.weight, block.fuse.bias)
    assert torch.allclose(block(x), expected, atol=1e-6)


def test_rdn_fuses_all_blocks_around_its_first_convolution():
    torch.manual_seed(0)
    net = RDN(4, 3, 2, 2).requires_grad_(False)
    rgb, seen = torch.randn(1, 3, 6, 7), []
    net.fuse.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    out = net(rgb)
    one = net.blocks[0](net.second(net.initial(rgb)))
    two = net.blocks[1](one)
    assert torch.equal(seen[0], torch.cat([one, two, net.blocks[2](two)], dim=1))
    net.fuse[1].weight.zero_()
    net.fuse[1].bias.zero_()
    assert torch.equal(net(rgb), net.initial(rgb))
    assert not torch.equal(out, net.initial(rgb))


def test_rows_differ_in_the_head_alone():
    """The same seed gives RDN the same weights, whatever its head draws afterwards."""
    first, *others = (Upscaler(row, SIZES["small"], seed=3).body.state_dict() for row in ROWS)
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


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


def test_liif_reproduces_a_constant(features):
    """The weights of the local ensemble add up to 1, at the border too."""
    head = LIIF(8, 16).requires_grad_(False)
    head.mlp[-1].weight.zero_()
    head.mlp[-1].bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    got = head(features, (13, 17))
    assert torch.allclose(got, torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1).expand_as(got))


@pytest.mark.parametrize("factor", [2, 3])
def test_meta_sr_at_an_integer_magnification_is_a_sub_pixel_convolution(features, factor):
    """Its kernels then repeat with that period: one convolution for each phase, interleaved by PyTorch."""
    head = MetaSR(8).requires_grad_(False)
    phases = torch.arange(factor) / factor
    grid = torch.stack(torch.meshgrid(phases, phases, indexing="ij"), dim=-1).view(-1, 2)
    inputs = torch.cat([grid, torch.full((factor**2, 1), 1 / factor)], dim=1)
    kernels = head.predict(inputs).view(factor**2, 8, 3, 3, 3)  # phase, channel, y, x, plane
    weight = kernels.permute(4, 0, 1, 2, 3).reshape(3 * factor**2, 8, 3, 3)
    expected = torch.nn.PixelShuffle(factor)(F.conv2d(features, weight, padding=1))
    assert torch.allclose(head(features, (5 * factor, 6 * factor)), expected, atol=1e-4)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_sub_pixel(features, factor):
    """Column x r + i and row y r + j take channel c r r + j r + i; for x4, twice."""
    head = SubPixel(8, factor).requires_grad_(False)
    convolutions = [m for m in head.modules() if isinstance(m, torch.nn.Conv2d)]
    step, x = 2 if factor == 4 else factor, features
    for conv in convolutions[:-1]:
        wide = conv(x)
        x = wide.new_empty(2, 8, x.shape[2] * step, x.shape[3] * step)
        for j in range(step):
            for i in range(step):
                x[:, :, j::step, i::step] = wide[:, j * step + i :: step**2]
    assert torch.allclose(head(features, (5 * factor, 6 * factor)), convolutions[-1](x), atol=1e-6)


def test_cpm_in_blocks_is_cpm(features):
    head = ContinuousPixelMapping(8, 16).requires_grad_(False)
    grids = build_axis(5, 90, 0, 90, "centre"), build_axis(6, 300, 0, 300, "centre")
    expected = head.cpm.map(head.cpm.fold_first_layer(features), *grids).permute(0, 3, 1, 2)
    assert torch.allclose(head(features, (90, 300)), expected, atol=1e-5)
