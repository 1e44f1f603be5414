"""The Triton kernel of CPM in Triton's interpreter, on a CPU. Run by test_cpm.py in a process of its own:
the interpreter is chosen by TRITON_INTERPRET=1 before Triton is first imported. test_cuda.py has `check` for GPUs.
"""

from types import SimpleNamespace

import oracle
import pytest
import torch

from scsnet.cpm import CPM, build_axis, dispatch
from scsnet.cpm.triton_kernel import Plan, list_plans, map_pixels

SMALL = Plan(8, 4, 16, 4, 1)


def check(dtype, tolerance, align, source, size, plan=SMALL, channels=32, device="cpu"):
    torch.manual_seed(1)
    head = CPM(16, channels).requires_grad_(False).to(device, dtype)
    features = torch.randn(2, 16, *source).to(device, dtype)
    grid = [build_axis(source[d], size[d], 0, size[d], align, device) for d in (0, 1)]
    got = map_pixels(head.parameters_of_map, head.fold_first_layer(features), *grid, plan)
    double = SimpleNamespace(head=head.double(), config=SimpleNamespace(cpm_align=align))
    expected = oracle.cpm(double, features.double(), size)
    assert got.shape == expected.shape
    assert got.dtype == torch.float32
    assert oracle.error(got, expected) < tolerance


# The interpreter cuts bfloat16 off where a GPU rounds to nearest: its error is twice a GPU's.
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 3e-2)]
)
@pytest.mark.parametrize("align", ["centre", "paper"])
@pytest.mark.parametrize(("source", "size"), oracle.CPM_GRIDS)
def test_kernel_equals_the_formula(dtype, tolerance, align, source, size):
    check(dtype, tolerance, align, source, size)


@pytest.mark.parametrize(
    ("plan", "channels"),
    [(plan, 128) for plan in {*list_plans((8, 0)), *list_plans((9, 0))}]
    + [(SMALL, channels) for channels in dispatch.WIDTHS],
    ids=str,
)
def test_every_plan_and_width(plan, channels):
    check(torch.float32, 1e-5, "centre", (5, 4), (19, 21), plan, channels)


def test_windows_of_the_grid_and_of_the_features():
    """Rows and pictures of features that are a view lie apart in memory."""
    torch.manual_seed(2)
    head = CPM(16, 32).requires_grad_(False)
    hidden = head.fold_first_layer(torch.randn(2, 16, 9, 8))
    rows, columns = build_axis(9, 30, 8, 21, "centre"), build_axis(8, 28, 8, 17, "centre")
    (top, bottom), (left, right) = rows.taps.span(), columns.taps.span()
    near = [a._replace(taps=a.taps.shifted(start)) for a, start in ((rows, top), (columns, left))]
    part = map_pixels(head.parameters_of_map, hidden[:, top:bottom, left:right], *near, SMALL)
    expected = head.map(hidden, rows, columns).permute(0, 3, 1, 2)
    assert torch.allclose(part, expected, atol=1e-5)
