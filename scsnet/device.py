"""Choose the device, the dtype and the number of threads, unless the user has."""

from __future__ import annotations

import math
from pathlib import Path

import torch

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Linux: CPU time in microseconds that a container may use, over all cores, and the period."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """Return the named device; "auto" is CUDA, else MPS, else the CPU. Raises ValueError if it is not available."""
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
        raise ValueError(f"device {kind} is not available to PyTorch {torch.__version__}")
    return torch.device(name)


def choose_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """Return the named dtype; "auto" is bfloat16 if the hardware multiplies it, float16 on other GPUs, else float32."""
    if name != "auto":
        if name not in DTYPES:
            raise ValueError(f"dtype must be one of auto, {', '.join(DTYPES)}, got {name!r}")
        return DTYPES[name]
    if device.type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float16
        )
    if device.type == "cpu" and cpu_multiplies_bfloat16():
        return torch.bfloat16
    return torch.float32


def cpu_multiplies_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16 matrices in hardware (AMX or AVX512-BF16).

    Elsewhere bfloat16 is emulated, and slower than float32.
    """
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(probe() for name in probes if (probe := getattr(torch.cpu, name, None)))


def choose_threads() -> int:
    """Return PyTorch's number of threads, one per core, but at most what the quota of a container allows."""
    threads = torch.get_num_threads()
    try:
        quota, period = CPU_QUOTA.read_text(encoding="ascii").split()
        allowed = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # not Linux, no container, or "max": no limit
        return threads
    return max(1, min(threads, allowed))


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 32 MiB, for the whole process.

    Returning them to the system costs a page fault per 4 KiB when they are allocated again: 0.17 s of the 0.25 s of a
    decode 128 -> 512. glibc raises its threshold to the largest block that was ever freed; nothing is written to this
    one. On other systems it has no effect.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)
