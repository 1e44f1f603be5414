"""CPM as one Triton kernel: when it is used, its results in Triton's interpreter; and that a GPU never waits."""

import os
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from scsnet import SCSNet, encode_picture, encode_references, render
from scsnet.config import SCSNetConfig
from scsnet.cpm import CPM, dispatch, enable_triton


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
