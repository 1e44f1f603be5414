"""Everything that the nodes ask of ComfyUI: devices, model patcher, memory, progress, interruption, model folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import comfy.cli_args
import comfy.model_management as mm
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from torch.overrides import TorchFunctionMode

from ..scsnet import SCSNet

if TYPE_CHECKING:
    from .types import Model

T = TypeVar("T")
Report = Callable[[int, int], None]
"""Called with (steps done, steps in all); raises ComfyUI's exception where the user has pressed Stop."""

FOLDER = "scsnet"  # models/scsnet, and the key in extra_model_paths.yaml
SUFFIX = ".safetensors"
TILE, SMALLEST_TILE = 512, 64
CPU_TILE = 320  # for rendering: bounds the longest single operation, after which Stop takes effect
STEPS = 1000  # of the progress bar, per picture


# --- folder of models ---------------------------------------------------------------------------------------------


def register_folder() -> None:
    """Add models/scsnet to the folders that extra_model_paths.yaml names under the same key."""
    own = os.path.join(folder_paths.models_dir, FOLDER)  # noqa: PTH118  as ComfyUI spells its paths
    folder_paths.add_model_folder_path(FOLDER, own)
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (
        paths,
        {SUFFIX},
    )  # ComfyUI lists every file otherwise


def weights_files() -> list[str]:
    """List the weights files in the registered folders, relative to these."""
    return folder_paths.get_filename_list(FOLDER)


def weights_path(name: str) -> Path | None:
    """Return the path of a file that `weights_files` lists; None where it does not exist."""
    path = folder_paths.get_full_path(FOLDER, name)
    return None if path is None else Path(path)


def download_folder() -> Path:
    """Return models/scsnet, the folder for downloads."""
    return Path(folder_paths.models_dir, FOLDER)


# --- devices and types --------------------------------------------------------------------------------------------


def compute_device() -> torch.device:
    """Return the device that networks run on."""
    return mm.get_torch_device()


def image_device() -> torch.device:
    """Return the device of IMAGEs between nodes: the CPU, or with --gpu-only the GPU."""
    return mm.intermediate_device()


def image_dtype() -> torch.dtype:
    """Return the type of IMAGEs between nodes; hosts before 0.18 have float32 only."""
    return getattr(mm, "intermediate_dtype", lambda: torch.float32)()


def network_dtype(choice: str) -> torch.dtype:
    """Return the type for "auto", "fp32", "fp16" or "bf16", "auto" by the host's rules and command line.

    Raises ValueError for other names and for a type that the device does not support.
    """
    if choice == "auto":
        device = compute_device()
        if comfy.cli_args.args.force_fp16 and mm.should_use_fp16(device):
            return torch.float16
        if mm.should_use_bf16(device):
            return torch.bfloat16
        return torch.float16 if mm.should_use_fp16(device) else torch.float32
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}.get(choice)
    if dtype is None:
        raise ValueError(f"dtype must be auto, fp32, fp16 or bf16, got {choice!r}")
    if not mm.supports_cast(compute_device(), dtype):
        raise ValueError(
            f"dtype {choice} is not supported on {compute_device()}; choose auto or fp32"
        )
    return dtype


def _is_same(a: torch.device, b: torch.device) -> bool:
    return a.type == b.type and (a.index or 0) == (b.index or 0)


# --- the network under memory management --------------------------------------------------------------------------


def wrap_network(net: SCSNet) -> Any:
    """Put the network under the host's memory management; returns its ModelPatcher."""
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(
        net.eval(), load_device=compute_device(), offload_device=mm.unet_offload_device()
    )


class Interruptible(TorchFunctionMode):
    """Checks for an interruption before every operation on tensors.

    On a CPU, where an operation has ended when the call returns, Stop then takes effect after the running operation.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        raise_if_interrupted()
        return func(*args, **(kwargs or {}))


@contextmanager
def use_network(model: Model, memory: float) -> Iterator[SCSNet]:
    """Yield the network on the compute device, with `memory` bytes free beside it.

    A GPU queues operations faster than it runs them; there only the reports of progress check for interruptions.
    """
    patcher = model.patcher
    mm.load_models_gpu([patcher], memory_required=memory, force_full_load=True)
    net, device = patcher.model, patcher.load_device
    # With --novram, and under dynamic memory, hosts do not move layers that are not their own.
    must_move = not all(_is_same(p.device, device) for p in net.parameters())
    if must_move:
        net.to(device)
    try:
        with Interruptible() if device.type == "cpu" else nullcontext():
            yield net
    finally:
        if must_move:
            net.to(patcher.offload_device)


# --- memory -------------------------------------------------------------------------------------------------------


def choose_lab_device(nbytes: float) -> torch.device:
    """Return the compute device for LAB tensors of at most an eighth of its free memory, else the offload device."""
    device = compute_device()
    return device if nbytes <= mm.get_free_memory(device) / 8 else mm.unet_offload_device()


def has_room_to_spare(nbytes: float) -> bool:
    """Return whether `nbytes` are at most a quarter of the free memory of the image device."""
    return nbytes <= mm.get_free_memory(image_device()) / 4


def check_room(nbytes: float, what: str) -> None:
    """Raise ValueError, with both numbers, where the image device has less than `nbytes` free."""
    free = mm.get_free_memory(image_device())
    if nbytes > free:
        raise ValueError(
            f"{what} would take {nbytes / 2**30:.1f} GiB, but only {free / 2**30:.1f} GiB are free. Choose a smaller "
            "scale, or render a window of it, or fewer pictures at a time."
        )


def render_tile() -> int:
    """Return the side of the largest tile to render, in source pixels."""
    return CPU_TILE if compute_device().type == "cpu" else TILE


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, mm.OOM_EXCEPTION):
        return True
    if hasattr(mm, "raise_non_oom"):  # newer hosts recognise more of these errors
        try:
            mm.raise_non_oom(error)
        except Exception as other:
            if other is not error:
                raise
            return "DefaultCPUAllocator" in str(error)
        return True
    return "DefaultCPUAllocator" in str(error)


class Tiles:
    """Side of the tiles that pictures are processed in, in source pixels; halved when memory runs out."""

    def __init__(self) -> None:
        self.side = TILE

    def run(self, work: Callable[[int], T]) -> T:
        """Call work(side), again with half the side after each out-of-memory error.

        Raises the host's out-of-memory error, upon which it unloads all models, where the smallest side is too large.
        """
        while True:
            try:
                return work(self.side)
            except Exception as error:
                if not _is_out_of_memory(error):
                    raise
            # Outside of the handler the traceback is gone, and with it the tensors of its frames.
            mm.soft_empty_cache(True)
            if self.side <= SMALLEST_TILE:
                raise mm.OOM_EXCEPTION(
                    f"Out of memory on {compute_device()} even with tiles of {self.side} pixels. Lower the working size, "
                    "give fewer pictures or references at a time, or start ComfyUI with --lowvram or --cpu."
                )
            self.side //= 2


# --- progress -----------------------------------------------------------------------------------------------------


def raise_if_interrupted() -> None:
    """Raise ComfyUI's exception where the user has pressed Stop."""
    mm.throw_exception_if_processing_interrupted()


class Progress:
    """The host's progress bar over a number of pictures. Every report also checks for an interruption."""

    def __init__(self, pictures: int) -> None:
        self.bar = comfy.utils.ProgressBar(pictures * STEPS)
        self.value = -1

    def between(self, start: float, stop: float) -> Report:
        """Return the report for the work from `start` to `stop`, in pictures."""

        def report(done: int, total: int) -> None:
            raise_if_interrupted()
            value = int(STEPS * (start + (stop - start) * done / max(total, 1)))
            if value != self.value:  # at most one message per step of the bar
                self.value = value
                self.bar.update_absolute(value)

        return report


def download_progress() -> Report:
    """Return the report for a download, in bytes."""
    bar = comfy.utils.ProgressBar(1)

    def report(done: int, total: int) -> None:
        bar.update_absolute(done, max(total, done, 1))

    return report
