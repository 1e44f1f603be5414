"""RDN and the heads of Tables 6 and 7, by the formulas of their papers, pixel by pixel."""

from itertools import product
from math import floor

import pytest
import torch
import torch.nn.functional as F

from training.config.upscaling import SIZES
from training.models.rdn import RDN, Upscaler
from training.models.upscaling_heads import LIIF, MetaSR, SubPixel


@pytest.mark.parametrize(("factor", "millions"), [(2, 22.12), (3, 22.31), (4, 22.27)])
def test_rdn_has_the_parameters_of_its_authors_models(factor, millions):
    """As counted in later papers, among them RCAN and SAN: D = 16, C = 8, G = G0 = 64."""
    with torch.device("meta"):
        net = Upscaler(f"sub-pixel x{factor}", SIZES["paper"])
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == millions


def test_rdn_is_the_formula():
    """Layers see all layers before them; all blocks are fused and added to the first convolution."""
    torch.manual_seed(0)
    net = RDN(4, 3, 2, 2).requires_grad_(False)

    def convolve(conv, *inputs):
        return F.conv2d(torch.cat(inputs, 1), conv.weight, conv.bias, padding="same")

    rgb, outputs = torch.randn(1, 3, 6, 7), []
    initial = convolve(net.initial, rgb)
    x = convolve(net.second, initial)
    for block in net.blocks:
        a = convolve(block.layers[0], x).relu()
        b = convolve(block.layers[1], x, a).relu()
        x = x + convolve(block.fuse, x, a, b)
        outputs.append(x)
    expected = initial + convolve(net.fuse[1], convolve(net.fuse[0], *outputs))
    assert torch.allclose(net(rgb), expected, atol=1e-6)


@pytest.fixture
def features():
    torch.manual_seed(3)
    return torch.randn(2, 8, 5, 6)


def patch(features, y, x):
    """(B, C 9): channel by channel, the 3 x 3 neighbourhood row by row, zero outside."""
    return F.pad(features, (1, 1, 1, 1))[:, :, y : y + 3, x : x + 3].flatten(1)


@pytest.mark.parametrize("size", [(10, 12), (13, 17), (4, 5)])
@pytest.mark.parametrize("pixels", [None, 20])
def test_meta_sr_is_the_formula(features, size, pixels):
    head = MetaSR(8).requires_grad_(False)
    got = head(features, size, pixels)
    assert got.shape == (2, 3, *size)
    for i, j in product(range(size[0]), range(size[1])):
        y, x = i * 5 / size[0], j * 6 / size[1]
        offset = torch.tensor([y - floor(y), x - floor(x), 5 / size[0]])
        weights = head.predict(offset).view(72, 3)
        expected = patch(features, floor(y), floor(x)) @ weights
        assert torch.allclose(got[:, :, i, j], expected, atol=1e-4)


@pytest.mark.parametrize("size", [(10, 12), (13, 17)])
def test_liif_is_the_formula(features, size, monkeypatch):
    monkeypatch.setattr(LIIF, "PIXELS", 40)
    head = LIIF(8).requires_grad_(False)
    got = head(features, size)
    cell = torch.tensor([2 * 5 / size[0], 2 * 6 / size[1]]).expand(2, -1)
    for i, j in product(range(size[0]), range(size[1])):
        y, x = (i + 0.5) * 5 / size[0] - 0.5, (j + 0.5) * 6 / size[1] - 0.5
        answers, areas = [], []
        for dy, dx in [(0, 0), (0, 1), (1, 0), (1, 1)]:
            row, column = min(max(floor(y) + dy, 0), 4), min(max(floor(x) + dx, 0), 5)
            offset = torch.tensor([2 * (y - row), 2 * (x - column)])
            query = [patch(features, row, column), offset.expand(2, -1), cell]
            answers.append(head.mlp(torch.cat(query, dim=1)))
            areas.append(abs(float(offset[0] * offset[1])) + 1e-9)
        opposite = torch.tensor(areas[::-1]).view(4, 1, 1) / sum(areas)
        expected = (torch.stack(answers) * opposite).sum(0)
        assert torch.allclose(got[:, :, i, j], expected, atol=1e-4)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_sub_pixel_is_the_formula(features, factor):
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
