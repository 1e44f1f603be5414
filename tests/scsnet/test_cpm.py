"""CPM against Eq. 3 evaluated pixel by pixel with exact fractions."""

from types import SimpleNamespace

import oracle
import pytest
import torch

from scsnet.cpm import CPM, build_axis


@pytest.mark.parametrize("align", ["centre", "paper"])
@pytest.mark.parametrize(
    ("n_in", "n_out", "start"),
    [
        *((8, 32, 0), (7, 16, 0), (9, 5, 0), (6, 6, 0), (1, 4, 0), (5, 1, 0)),
        # In float32, positions on the border of a cell would fall into the previous one.
        *((567, 567 * 6 + 1, 0), (99_991, 100_000_007, 99_999_999)),
    ],
)
def test_positions_and_relative_coordinates_are_exact(align, n_in, n_out, start):
    axis = build_axis(n_in, n_out, start, n_out, align)
    for i, (source, weight) in enumerate(zip(axis.taps.source, axis.taps.weight, strict=True)):
        position, z = oracle.look_up(n_in, n_out, start + i, align)
        first, second = source.tolist()
        assert abs(first + weight[1].item() * (second - first) - position) < 1e-6
        assert abs(axis.relative[i].item() - z) < 1e-6


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("align", ["centre", "paper"])
@pytest.mark.parametrize(("source", "size"), oracle.CPM_GRIDS)
def test_head_equals_the_formula(align, source, size, gradients):
    torch.manual_seed(1)
    head = CPM(16, 32).requires_grad_(gradients)
    features = torch.randn(2, 16, *source)
    grid = [build_axis(source[d], size[d], 0, size[d], align) for d in (0, 1)]
    got = head.map(head.fold_first_layer(features), *grid).permute(0, 3, 1, 2).detach()
    double = SimpleNamespace(head=head.double(), config=SimpleNamespace(cpm_align=align))
    assert oracle.error(got, oracle.cpm(double, features.double(), size)) < 1e-5


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
