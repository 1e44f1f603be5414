"""The Triton kernel of CPM in Triton's interpreter, on a CPU. Run by test_cpm_dispatch.py in a process of its own:
the interpreter is chosen by TRITON_INTERPRET=1 before Triton is first imported.
"""

from types import SimpleNamespace

import oracle
import pytest
import torch

from scsnet.cpm import CPM, build_axis, dispatch
from scsnet.cpm.triton_kernel import OutOfResources, Plan, find_fastest, list_plans, map_pixels

SMALL = Plan(8, 4, 16, 4, 1)
GRIDS = [
    ((8, 8), (32, 32)),
    ((7, 5), (16, 27)),
    ((9, 12), (5, 4)),
    ((6, 6), (6, 6)),
    ((5, 1), (1, 7)),
    ((3, 4), (1, 1)),
]
# The interpreter cuts bfloat16 off where a GPU rounds to nearest: its error is twice a GPU's.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 3e-2}


def compare(dtype, align, source, size, plan, channels=32, batch=2):
    torch.manual_seed(1)
    head = CPM(16, channels).requires_grad_(False).to(dtype)
    features = torch.randn(batch, 16, *source).to(dtype)
    grid = [build_axis(source[d], size[d], 0, size[d], align) for d in (0, 1)]
    got = map_pixels(head.parameters_of_map, head.fold_first_layer(features), *grid, plan)
    double = SimpleNamespace(head=head.double(), config=SimpleNamespace(cpm_align=align))
    expected = oracle.cpm(double, features.double(), size, range(size[0]), range(size[1]))
    assert got.shape == expected.shape
    assert got.dtype == torch.float32
    assert (got - expected).abs().max() / expected.abs().max() < TOLERANCE[dtype]


@pytest.mark.parametrize("align", ["centre", "paper"])
@pytest.mark.parametrize(("source", "size"), GRIDS)
def test_kernel_equals_the_formula(align, source, size):
    compare(torch.float32, align, source, size, SMALL)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    compare(dtype, "centre", (7, 5), (16, 27), SMALL)


@pytest.mark.parametrize("channels", dispatch.WIDTHS)
def test_every_width(channels):
    compare(torch.float32, "centre", (4, 4), (9, 9), SMALL, channels, batch=1)


@pytest.mark.parametrize("plan", {*list_plans((8, 0)), *list_plans((9, 0))}, ids=str)
def test_every_plan(plan):
    compare(torch.float32, "centre", (5, 4), (19, 21), plan, 128, batch=1)


def test_windows_of_a_batch_and_of_features():
    """Part of a grid on features that are themselves a view: rows and pictures lie apart in memory."""
    torch.manual_seed(2)
    head = CPM(16, 32).requires_grad_(False)
    hidden = head.fold_first_layer(torch.randn(2, 16, 9, 8))
    rows, columns = build_axis(9, 30, 8, 21, "centre"), build_axis(8, 28, 8, 17, "centre")
    whole = map_pixels(head.parameters_of_map, hidden, rows, columns, SMALL)
    (top, bottom), (left, right) = rows.taps.span(), columns.taps.span()
    near = [a._replace(taps=a.taps.shifted(start)) for a, start in ((rows, top), (columns, left))]
    part = map_pixels(head.parameters_of_map, hidden[:, top:bottom, left:right], *near, SMALL)
    assert torch.equal(part, whole)
    plain = head.map(hidden, rows, columns).permute(0, 3, 1, 2)
    assert torch.allclose(whole, plain, atol=1e-5)


def test_decode_takes_the_kernel_where_it_is_chosen(tiny_net, monkeypatch):
    import scsnet.cpm.triton_kernel as module

    features = tiny_net.encode(torch.rand(1, 1, 12, 9))
    plain = tiny_net.decode(features, (17, 18))
    calls = []
    launch = module.map_pixels
    monkeypatch.setattr(module, "map_pixels", lambda *a: calls.append(a) or launch(*a))
    monkeypatch.setattr(dispatch, "choose_plan", lambda *_: SMALL)
    monkeypatch.setattr("scsnet.cpm.onednn_kernel.is_usable", lambda *_: False)
    assert torch.allclose(tiny_net.decode(features, (17, 18)), plain, atol=1e-5)
    assert len(calls) == 1  # one launch for the whole of a small picture


def test_nan_is_not_hidden():
    head = CPM(16, 16).requires_grad_(False)
    hidden = torch.full((1, 2, 2, 16), torch.nan)
    grid = build_axis(2, 4, 0, 4, "centre")
    assert map_pixels(head.parameters_of_map, hidden, grid, grid, SMALL).isnan().all()


def test_the_fastest_plan_that_fits_is_taken():
    slow, quick, huge = SMALL, SMALL._replace(across=8), SMALL._replace(across=16)

    def timer(run):
        plan = run.args[-1]
        if plan == huge:
            raise OutOfResources(300_000, 232_448, "shared memory")
        run()
        return {slow: 2.0, quick: 1.0}[plan]

    state = torch.random.get_rng_state()
    arguments = (torch.device("cpu"), torch.float32, 16)
    assert find_fastest(*arguments, (huge, slow, quick), side=2, timer=timer) == quick
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(OutOfResources):
        find_fastest(*arguments, (huge,), side=2, timer=timer)
