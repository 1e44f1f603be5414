"""Devices, dtypes and threads that are chosen without the user."""

import subprocess
import sys

import pytest
import torch

from scsnet import device


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16)],
)
def test_bfloat16_only_where_the_gpu_multiplies_it(monkeypatch, capability, expected):
    """PyTorch counts GPUs that emulate bfloat16 as supporting it unless told otherwise."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    properties = type("Properties", (), {"major": capability[0], "minor": capability[1]})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr("torch.cuda._check_bf16_tensor_supported", lambda _: True, raising=False)
    assert device.choose_dtype(torch.device("cuda")) == expected


def test_importing_changes_no_allocator(root):
    """Only the command line changes malloc's settings; inside a host they stay unchanged."""
    code = (
        "import torch\n"
        "calls = []\n"
        "empty = torch.empty\n"
        "torch.empty = lambda *a, **k: calls.append(a) or empty(*a, **k)\n"
        "import scsnet.pipeline, scsnet.checkpoint, scsnet.device\n"
        "assert not [a for a in calls if a and a[0] > 2**20], calls\n"
        "scsnet.device.keep_freed_memory()\n"
        "assert calls\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
