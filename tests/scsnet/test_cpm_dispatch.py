"""CPM as one Triton kernel: when it is chosen, its results in Triton's interpreter, and synchronisation with the GPU."""

import os
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import scsnet
from scsnet import encode_picture, encode_references, render
from scsnet.cpm import BLOCK, CPM, dispatch, enable_triton
from scsnet.cpm.head import FUSED_BLOCK

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None,
    reason="Triton is not installed: the GPU kernel is NOT tested. On Linux: pip install triton",
)


def run_apart(root, tmp_path, name, **environment):
    """Runs a test file in a process of its own, with its own state of Triton."""
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-o",
            "filterwarnings=default",
            f"tests/support/{name}",
        ],
        cwd=root,
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]


@needs_triton
def test_kernel_in_the_interpreter(root, tmp_path):
    run_apart(root, tmp_path, "interpreted_cpm.py", TRITON_INTERPRET="1")


@needs_triton
def test_kernel_compiles_for_gpus(root, tmp_path):
    run_apart(root, tmp_path, "compiled_cpm.py", TRITON_INTERPRET="0")


def features(**changes):
    kind = {"device": torch.device("cuda", 0), "dtype": torch.bfloat16, "requires_grad": False}
    return SimpleNamespace(**{**kind, **changes})


def head(channels=32, dtype=torch.bfloat16):
    return CPM(16, channels).to(dtype).requires_grad_(False)


def choose(head, features):
    return dispatch.choose_plan(head.parameters_of_map, features)


def test_kernel_is_chosen_for_what_it_can_do(monkeypatch):
    monkeypatch.setattr(dispatch, "_compile_and_time", lambda *key: key)
    monkeypatch.setattr(dispatch, "_enabled", False)
    assert choose(head(), features()) is None  # only on request
    enable_triton()
    assert choose(head(), features()) == (torch.device("cuda", 0), torch.bfloat16, 32)
    half = torch.float16
    assert choose(head(256, half), features(dtype=half)) is not None
    assert choose(head(), torch.zeros(1, dtype=torch.bfloat16)) is None  # on a CPU
    assert choose(head(dtype=torch.float32), features(dtype=torch.float32)) is None
    assert choose(head(dtype=torch.float32), features()) is None  # mixed
    assert choose(head(48), features()) is None
    learning = head().requires_grad_(True)
    assert choose(learning, features()) is None
    with torch.no_grad():
        assert choose(learning, features(requires_grad=True)) is not None


def test_blocks_stay_small_where_the_kernel_is_not_used(monkeypatch):
    """Beyond the magnification where CPM is computed in float32, a large block would take 1 GiB."""
    monkeypatch.setattr(dispatch, "_enabled", True)
    monkeypatch.setattr(dispatch, "_compile_and_time", lambda *key: key)
    assert head().block_size(features(), 4) == FUSED_BLOCK
    assert head().block_size(features(), 100) == BLOCK


def test_triton_is_imported_only_when_needed(root):
    code = (
        "import sys, torch\n"
        "from scsnet import SCSNet, SCSNetConfig\n"
        "net = SCSNet(SCSNetConfig(width=8, depth=1)).eval().requires_grad_(False)\n"
        "net.decode(net.encode(torch.rand(1, 1, 8, 8)), (16, 16))\n"
        "assert 'triton' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


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
def test_nothing_is_read_back_or_sent_in_between(tiny_net, monkeypatch, align, size):
    """On the meta device reading a value fails; so no code path makes a GPU wait for the host."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
    config = scsnet.SCSNetConfig(**{**tiny_net.config.to_dict(), "cpm_align": align})
    net = scsnet.SCSNet(config).requires_grad_(False).to("meta")
    photo, reference = torch.rand(2, 1, *size).to("meta"), torch.rand(1, 3, 30, 30).to("meta")
    with Copies() as copies:
        # finding margins has to read the picture
        encoded = encode_picture(net, photo, encode_references(net, [reference]), inside=None)
        for window in (None, (20, 31, 40, 50)):
            assert render(net, encoded, (120, 131), window, luminance="input").is_meta
            assert render(net, encoded, (120, 131), window).is_meta
    assert not copies.found
    with pytest.raises(RuntimeError):
        float(photo.sum())  # the meta device does refuse
