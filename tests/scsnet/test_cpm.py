"""CPM against Eq. 3 evaluated pixel by pixel with exact fractions."""

from fractions import Fraction

import oracle
import pytest
import torch

from scsnet.cpm import CPM, build_axis

GRIDS = [
    ((8, 8), (32, 32)),
    ((7, 5), (16, 27)),
    ((9, 12), (5, 4)),
    ((6, 6), (6, 6)),
    ((1, 1), (3, 4)),
    ((5, 1), (1, 7)),
    ((3, 4), (1, 1)),
]


@pytest.mark.parametrize("align", ["centre", "paper"])
@pytest.mark.parametrize(("source", "size"), GRIDS)
def test_axis_is_exact(align, source, size):
    for n_in, n_out in zip(source, size, strict=True):
        made = build_axis(n_in, n_out, 0, n_out, align)
        for i in range(n_out):
            position, z = oracle.look_up(n_in, n_out, i, align)
            got = (made.taps.source[i] * made.taps.weight[i]).sum()
            assert abs(got - float(position)) < 1e-5
            assert abs(made.relative[i] - float(z)) < 1e-6


def test_cells_are_right_where_float32_errs():
    """Float32 positions on cell borders often fall into the previous cell: Z is then +1 instead of -1."""
    n_in, n_out = 567, 567 * 6 + 1
    made = build_axis(n_in, n_out, 0, n_out, "paper").relative
    exact = torch.tensor([float(oracle.look_up(n_in, n_out, i, "paper")[1]) for i in range(n_out)])
    assert (made - exact).abs().max() < 1e-6
    x = torch.arange(n_out, dtype=torch.float32) / (n_out - 1)
    naive = torch.frac(x * n_in) * 2 - 1
    assert ((naive - exact).abs() > 1.9).sum() > 10


def test_relative_coordinate_covers_a_cell_evenly():
    z = build_axis(5, 20, 0, 20, "centre").relative.reshape(5, 4)
    assert torch.allclose(z, torch.tensor([-0.75, -0.25, 0.25, 0.75]).expand(5, 4))
    assert build_axis(5, 1, 0, 1, "paper").relative.item() == -1  # Wt = 1: x = 0


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("align", ["centre", "paper"])
@pytest.mark.parametrize(("source", "size"), GRIDS)
def test_head_equals_the_formula(align, source, size, gradients):
    from types import SimpleNamespace

    torch.manual_seed(1)
    head = CPM(16, 32).requires_grad_(gradients)
    features = torch.randn(2, 16, *source)
    rows, columns = (
        build_axis(source[0], size[0], 0, size[0], align),
        build_axis(source[1], size[1], 0, size[1], align),
    )
    got = head.map(head.fold_first_layer(features), rows, columns).permute(0, 3, 1, 2).detach()
    double = SimpleNamespace(head=head.double(), config=SimpleNamespace(cpm_align=align))
    expected = oracle.cpm(double, features.double(), size, range(size[0]), range(size[1]))
    assert (got - expected).abs().max() / expected.abs().max() < 1e-5


def test_exact_at_any_distance():
    """A window far out in a 100,000 pixel grid has the same Z as exact fractions."""
    part = build_axis(4097, 99_999, 99_990, 99_999, "centre")
    for i, z in enumerate(part.relative.tolist()):
        cell = Fraction(2 * (99_990 + i) + 1, 2 * 99_999) * 4097
        assert abs(z - float(2 * (cell % 1) - 1)) < 1e-6


def test_gradients_reach_every_weight():
    head = CPM(8, 16)
    grid = build_axis(4, 9, 0, 9, "centre")
    head.map(head.fold_first_layer(torch.randn(1, 8, 4, 4)), grid, grid).square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("rows", [3, 3000])
def test_neighbouring_pixels_differ_at_any_magnification(rows):
    """At x1000 bfloat16 cannot represent the difference between neighbours' weights, so CPM computes in float32."""
    torch.manual_seed(0)
    head = CPM(8, 32).requires_grad_(False).bfloat16()
    hidden = head.fold_first_layer(torch.randn(1, 8, 3, 3).bfloat16())
    rows = build_axis(3, rows, rows // 2, rows // 2 + 1, "centre")
    columns = build_axis(3, 3000, 1500, 1756, "centre")
    with torch.inference_mode():
        planes = head.map(hidden, rows, columns)
    assert len(planes[0, 0, :, 1].unique()) > 240
