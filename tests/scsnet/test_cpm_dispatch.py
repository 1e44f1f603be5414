"""CPM as one Triton kernel: when it is used, its results in Triton's interpreter; and that a GPU never waits."""

import os
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scsnet import SCSNet, encode_picture, encode_references, render
from scsnet.config import SCSNetConfig
from scsnet.cpm import BLOCK, CPM, dispatch, enable_triton
from scsnet.cpm.head import FUSED_BLOCK


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


def test_kernel_is_used_where_it_can_be(monkeypatch):
    """As if it compiled; the plan that is chosen tells what for."""
    monkeypatch.setattr(dispatch, "_compile_and_time", lambda *key: key)
    monkeypatch.setattr(dispatch, "_enabled", True)
    cuda, half, single = torch.device("cuda", 0), torch.bfloat16, torch.float32

    def choose(channels=32, dtype=half, features=half, device=cuda, learns=False):
        head = CPM(16, channels).to(dtype).requires_grad_(learns)
        picture = SimpleNamespace(device=device, dtype=features, requires_grad=learns)
        block = head.block_size(picture, 4)
        assert head.block_size(picture, 100) == BLOCK  # in float32, a large block would take 1 GiB
        return block == FUSED_BLOCK and dispatch.choose_plan(head.parameters_of_map, picture)

    assert choose() == (cuda, half, 32)
    assert choose(256, torch.float16, torch.float16)
    assert not choose(48)
    assert not choose(dtype=single)
    assert not choose(dtype=single, features=single)
    assert not choose(device=torch.device("cpu"))
    assert not choose(learns=True)
    with torch.no_grad():
        assert choose(learns=True)
    enable_triton(False)
    assert not choose()


class Copies(TorchDispatchMode):
    """Records copies from host memory to the device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            source = args[1] if func.overloadpacket is torch.ops.aten.copy_ else args[0]
            if source.device.type == "cpu" and result.device.type == "meta":
                self.found.append((func, source.shape))
        return result


@pytest.mark.parametrize("align", ["centre", "paper"])
@pytest.mark.parametrize("size", [(40, 44), (87, 91)])
def test_gpu_never_waits_for_the_host(monkeypatch, align, size):
    """Reading a value on the meta device fails, as it would make a GPU wait; nor is anything copied to it."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
    config = SCSNetConfig(width=8, depth=2, working_size=32, cpm_align=align)
    net = SCSNet(config).requires_grad_(False).to("meta")
    photo, reference = torch.rand(2, 1, *size).to("meta"), torch.rand(1, 3, 30, 30).to("meta")
    with Copies() as copies:
        # Finding margins has to read the picture.
        encoded = encode_picture(net, photo, encode_references(net, [reference]), inside=None)
        for window in (None, (20, 31, 40, 50)):
            assert render(net, encoded, (120, 131), window, luminance="input").is_meta
            assert render(net, encoded, (120, 131), window).is_meta
    assert not copies.found
