"""Devices, dtypes and threads, chosen by name or automatically."""

import pytest
import torch

from scsnet import device
from scsnet.device import choose_device, choose_dtype

CPU = torch.device("cpu")


def test_devices_and_dtypes_are_chosen_by_name(monkeypatch):
    assert choose_device("cpu") == CPU
    assert choose_dtype(CPU, "float16") == torch.float16
    assert choose_dtype(CPU) in (torch.float32, torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="cuda is not available"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("multiplied", torch.bfloat16), ("emulated", torch.float16), ("", torch.float16)],
)
def test_bfloat16_only_where_the_gpu_multiplies_it(monkeypatch, name, expected):
    """PyTorch counts GPUs that emulate bfloat16 as supporting it unless told otherwise."""

    def is_supported(including_emulation=True):
        return name == "multiplied" or (name == "emulated" and including_emulation)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert choose_dtype(torch.device("cuda")) == expected


@pytest.mark.parametrize(
    ("quota", "threads"),
    [("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 4), ("max 100000", 4), (None, 4)],
)
def test_threads_stay_within_a_containers_quota(monkeypatch, tmp_path, quota, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(device, "CPU_QUOTA", tmp_path / "cpu.max")
    if quota:
        device.CPU_QUOTA.write_text(quota)
    assert device.choose_threads() == threads
