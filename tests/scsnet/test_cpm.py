"""CPM against Eq. 3; as one Triton kernel: when it is used, its results in Triton's interpreter; that a GPU never waits."""

import os
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from types import SimpleNamespace

import oracle
import pytest
import torch

from scsnet import SCSNet, SCSNetConfig, encode_picture, encode_references, render
from scsnet.cpm import CPM, build_axis, dispatch, enable_triton


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


@pytest.mark.skipif(
    find_spec("triton") is None,
    reason="Triton is not installed: the GPU kernel is NOT tested. On Linux: pip install triton",
)
def test_kernel_in_the_interpreter(root):
    """In a process of its own: Triton chooses its interpreter when it is imported."""
    options = ["-q", "-o", "filterwarnings=default"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/support/interpreted_cpm.py"],
        cwd=root,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]


@pytest.mark.parametrize("enabled", [True, False])
def test_kernel_is_used_for_half_precision_on_request(monkeypatch, enabled):
    """As if it compiled."""
    monkeypatch.setattr(dispatch, "_compile_and_time", lambda *key: key)
    monkeypatch.setattr(dispatch, "_enabled", False)
    enable_triton(enabled)
    parameters = CPM(16, 32).bfloat16().requires_grad_(False).parameters_of_map

    def choose(device, dtype):
        features = SimpleNamespace(device=torch.device(device), dtype=dtype, requires_grad=False)
        return dispatch.choose_plan(parameters, features)

    assert (choose("cuda", torch.bfloat16) is not None) == enabled
    assert choose("cuda", torch.float32) is choose("cpu", torch.bfloat16) is None


@pytest.mark.parametrize("align", ["centre", "paper"])
@pytest.mark.parametrize("size", [(40, 44), (87, 91)])
def test_gpu_never_waits_for_the_host(monkeypatch, align, size):
    """Reading a value on the meta device fails, as it would make a GPU wait."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
    config = SCSNetConfig(width=8, depth=2, working_size=32, cpm_align=align)
    net = SCSNet(config).requires_grad_(False).to("meta")
    photo, reference = torch.rand(2, 1, *size).to("meta"), torch.rand(1, 3, 30, 30).to("meta")
    # Finding margins has to read the picture.
    encoded = encode_picture(net, photo, encode_references(net, [reference]), inside=None)
    for window in (None, (20, 31, 40, 50)):
        assert render(net, encoded, (120, 131), window, luminance="input").is_meta
        assert render(net, encoded, (120, 131), window).is_meta
