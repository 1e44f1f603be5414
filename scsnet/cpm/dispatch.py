"""Decide whether CPM runs as one Triton kernel, and with which block sizes.

The kernel is experimental and has not been run on a GPU: it is used only after `enable_triton()`, where Triton is
installed and compiles, for bfloat16 and float16. Otherwise `CPM.map` uses PyTorch's operators.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .parameters import Parameters

if TYPE_CHECKING:
    from .triton_kernel import Plan

FORMATS = (torch.bfloat16, torch.float16)
WIDTHS = (16, 32, 64, 128, 256)  # channels: powers of two whose accumulators fit into registers
CAPABILITY = (8, 0)  # below, Triton multiplies without tensor cores

_enabled = False


def enable_triton(enabled: bool = True) -> None:
    """Allow or forbid the experimental Triton kernel, for the whole process."""
    global _enabled
    _enabled = enabled


def choose_plan(parameters: Parameters, features: Tensor) -> Plan | None:
    """Return the block sizes of the kernel for features of this device and dtype, or None if it is not used.

    The first call on a device compiles and times the candidates.
    """
    layers, channels = parameters.tensors(), len(parameters.coordinates)
    gradients = features.requires_grad or any(p.requires_grad for p in layers)
    if (
        not _enabled
        or features.device.type != "cuda"
        or features.dtype not in FORMATS
        or channels not in WIDTHS
        or any(p.dtype != features.dtype for p in layers)
        or (torch.is_grad_enabled() and gradients)
        or torch.is_autocast_enabled("cuda")
        or torch.compiler.is_compiling()
    ):
        return None
    return _compile_and_time(features.device, features.dtype, channels)


@cache
def _compile_and_time(device: torch.device, dtype: torch.dtype, channels: int) -> Plan | None:
    """Return the fastest plan; None, with a warning that names the reason, if Triton fails."""
    if torch.version.hip is not None or importlib.util.find_spec("triton") is None:
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        return None
    try:
        from . import triton_kernel
    except (ImportError, OSError) as error:
        _warn(error)
        return None
    try:
        return triton_kernel.find_fastest(
            device, dtype, channels, triton_kernel.list_plans(capability)
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # Errors of the C compiler and assembler that Triton calls come from the module subprocess, which ComfyUI's
        # registry forbids importing.
        known = isinstance(error, (triton_kernel.TritonError, RuntimeError, OSError))
        if not known and type(error).__module__ != "subprocess":
            raise
        _warn(error)
        return None


def _warn(error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    warnings.warn(
        f"Triton is installed but does not work here ({reason}); using PyTorch's operators",
        RuntimeWarning,
        stacklevel=2,
    )
