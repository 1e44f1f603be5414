"""Whether CPM runs as one Triton kernel, and how that is cut: the one place that decides.

It does where Triton is installed (it comes with PyTorch's CUDA builds on Linux, and is nothing that we
ask for), compiles on this machine, and the work suits it; everywhere else `CPM.map` does the same with
PyTorch's operators. float32 is left to those: without tensor cores, theirs are the better products.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .head import CPM
    from .triton_kernel import Plan

FORMATS = (torch.bfloat16, torch.float16)
WIDTHS = (16, 32, 64, 128, 256)  # channels: powers of two, and what fits into registers
CAPABILITY = (8, 0)  # below, Triton multiplies without tensor cores


def plan(head: CPM, features: Tensor) -> Plan | None:
    """How to launch the kernel for features, or F_cs, of this device and format; None: not at all.

    On a device's first call it compiles and times the candidates; on later ones it reads nothing back.
    """
    layers = list(head.linears.parameters())
    gradients = features.requires_grad or any(p.requires_grad for p in layers)
    if (
        features.device.type != "cuda"
        or features.dtype not in FORMATS
        or head.fuse.out_channels not in WIDTHS
        or any(p.dtype != features.dtype for p in layers)
        or (torch.is_grad_enabled() and gradients)
        or torch.is_autocast_enabled("cuda")
        or torch.compiler.is_compiling()
    ):
        return None
    return _chosen(features.device, features.dtype, head.fuse.out_channels)


@cache
def _chosen(device: torch.device, dtype: torch.dtype, channels: int) -> Plan | None:
    """The fastest plan there; None, with a warning that says why, where Triton fails."""
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
        return triton_kernel.fastest(device, dtype, channels, triton_kernel.plans(capability))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # Those of the C compiler and the assembler that Triton calls are known by their module's name: the security
        # scan of ComfyUI's registry objects to packs that import it.
        known = isinstance(error, (triton_kernel.TritonError, RuntimeError, OSError))
        if not known and type(error).__module__ != "subprocess":
            raise
        _warn(error)
        return None


def _warn(error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    warnings.warn(
        f"Triton is installed but does not work here ({reason}); decoding takes the slower way",
        RuntimeWarning,
        stacklevel=2,
    )
