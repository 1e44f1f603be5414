"""CPM as one Triton kernel: who decides, what it computes (in Triton's interpreter), what stays on the GPU."""

import os
import subprocess
import sys
import warnings
from contextlib import nullcontext
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import scsnet
from scsnet import encode_picture, encode_references, render
from scsnet.cpm import CPM, dispatch
from scsnet.replay import Replay

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None,
    reason="Triton is not installed: the GPU kernel is NOT tested. On Linux: pip install triton",
)


def run_apart(root, tmp_path, name, **environment):
    """A test file that needs Triton in a state of its own."""
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


def test_kernel_is_chosen_for_what_it_can_do(monkeypatch):
    monkeypatch.setattr(dispatch, "_chosen", lambda *key: key)
    assert dispatch.plan(head(), features()) == (torch.device("cuda", 0), torch.bfloat16, 32)
    half = torch.float16
    assert dispatch.plan(head(256, half), features(dtype=half)) is not None
    assert dispatch.plan(head(), torch.zeros(1, dtype=torch.bfloat16)) is None  # on a CPU
    assert dispatch.plan(head(), features(device=torch.device("mps"))) is None
    assert dispatch.plan(head(dtype=torch.float32), features(dtype=torch.float32)) is None
    assert dispatch.plan(head(dtype=torch.float32), features()) is None  # mixed
    assert dispatch.plan(head(48), features()) is None
    assert dispatch.plan(head(512), features()) is None
    learning = head().requires_grad_(True)
    assert dispatch.plan(learning, features()) is None
    assert dispatch.plan(head(), features(requires_grad=True)) is None
    with torch.no_grad():
        assert dispatch.plan(learning, features(requires_grad=True)) is not None


@pytest.fixture
def gpu(monkeypatch):
    """A GPU by name, with a Triton that answers as the test says."""
    dispatch._chosen.cache_clear()
    kernel = SimpleNamespace(
        TritonError=type("TritonError", (Exception,), {}),
        plans=lambda capability: [capability],
        fastest=lambda device, dtype, channels, candidates: candidates[0],
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(scsnet.cpm, "triton_kernel", kernel, raising=False)
    monkeypatch.setitem(sys.modules, "scsnet.cpm.triton_kernel", kernel)
    yield kernel
    dispatch._chosen.cache_clear()


def test_a_plan_is_made_once(gpu, monkeypatch):
    assert dispatch.plan(head(), features()) == (9, 0)
    monkeypatch.setattr(gpu, "fastest", None)
    assert dispatch.plan(head(), features()) == (9, 0)


@pytest.mark.parametrize("why", ["no triton", "old GPU", "not CUDA"])
def test_plain_way_where_there_is_nothing_to_expect(gpu, monkeypatch, why):
    if why == "no triton":
        monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda _: None)
    elif why == "old GPU":
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    else:
        monkeypatch.setattr(torch.version, "hip", "7.0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dispatch.plan(head(), features()) is None


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to find C compiler.\nPlease specify one."),
        subprocess.CalledProcessError(1, ["gcc"]),
        OSError("no room"),
        "TritonError",
        "import",
    ],
    ids=str,
)
def test_plain_way_with_a_warning_where_triton_fails(gpu, monkeypatch, error):
    if error == "import":
        monkeypatch.delattr(scsnet.cpm, "triton_kernel")
        monkeypatch.setitem(sys.modules, "scsnet.cpm.triton_kernel", None)
    else:
        cause = gpu.TritonError("no registers") if error == "TritonError" else error

        def fail(*_):
            raise cause

        monkeypatch.setattr(gpu, "fastest", fail)
    with pytest.warns(RuntimeWarning, match="Triton is installed but does not work here"):
        assert dispatch.plan(head(), features()) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert dispatch.plan(head(), features()) is None


def test_no_memory_is_not_taken_for_a_broken_triton(gpu, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu, "fastest", fail)
    with pytest.raises(torch.OutOfMemoryError):
        dispatch.plan(head(), features())


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
    """What is copied from host memory to the device."""

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
    """On the meta device, which has no numbers: asking for one fails. So a GPU never waits for the host."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
    config = scsnet.SCSNetConfig(**{**tiny_net.config.to_dict(), "cpm_align": align})
    net = scsnet.SCSNet(config).requires_grad_(False).to("meta")
    photo, reference = torch.rand(2, 1, *size).to("meta"), torch.rand(1, 3, 30, 30).to("meta")
    with Copies() as copies:
        encoded = encode_picture(net, photo, encode_references(net, [reference]))
        for window in (None, (20, 31, 40, 50)):
            assert render(net, encoded, (120, 131), window, luminance="input").is_meta
            assert render(net, encoded, (120, 131), window).is_meta
    assert not copies.found
    with pytest.raises(RuntimeError):
        float(photo.sum())  # the meta device does refuse


def test_replay_needs_a_gpu(tiny_net):
    with pytest.raises(ValueError, match="expected a network on a CUDA device, got one on cpu"):
        Replay(tiny_net, (1, 1, 8, 8), (16, 16))
