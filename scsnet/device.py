"""Which device and which number format to compute with, where the user leaves the choice to us."""

from __future__ import annotations

import math
from pathlib import Path

import torch

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Linux: microseconds of all cores together that a container may use, and out of how many."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """ "auto" takes CUDA, else MPS, else the CPU; ValueError where the asked one is not there."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    kind = name.split(":")[0]
    if kind not in available:
        raise ValueError(f"device must be one of auto, {', '.join(available)}, got {name!r}")
    if not available[kind]:
        raise ValueError(f"no {kind} device here; PyTorch {torch.__version__} does not see one")
    return torch.device(name)


def choose_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """ "auto" takes the fastest format that keeps the colours: bfloat16 where the hardware has it."""
    if name != "auto":
        if name not in DTYPES:
            raise ValueError(f"dtype must be one of auto, {', '.join(DTYPES)}, got {name!r}")
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu" and cpu_multiplies_bfloat16():
        return torch.bfloat16
    return torch.float32


def cpu_multiplies_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware (AMX or AVX512-BF16).

    Elsewhere bfloat16 is emulated, and slower than float32.
    """
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(probe() for name in probes if (probe := getattr(torch.cpu, name, None)))


def choose_threads() -> int:
    """How many threads to compute with on a CPU: PyTorch's choice, but no more than a container may use.

    PyTorch takes one per core, which is fastest; of a container's quota it knows nothing.
    """
    threads = torch.get_num_threads()
    try:
        quota, period = CPU_QUOTA.read_text(encoding="ascii").split()
        allowed = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # not Linux, no container, or "max": no limit
        return threads
    return max(1, min(threads, allowed))
