"""The one file that talks to ComfyUI: devices, model patcher, memory, progress, interruption, model folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import comfy.cli_args
import comfy.model_management as mm
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch

from ..scsnet import SCSNet

if TYPE_CHECKING:
    from .types import Model

T = TypeVar("T")
Report = Callable[[int, int], None]
"""Called with (steps done, steps in all); raises when ComfyUI was told to stop."""

FOLDER = "scsnet"  # models/scsnet, and the key in extra_model_paths.yaml
ENDING = ".safetensors"
TILE, SMALLEST_TILE = 512, 64
CPU_TILE = (
    192  # on a CPU: an interruption takes effect after a tile, within about a second on two cores
)
STEPS = 1000  # of the progress bar, per picture


# --- folder of models ---------------------------------------------------------------------------------------------


def register_folder() -> None:
    """Make models/scsnet known, beside the folders that extra_model_paths.yaml has named already."""
    own = os.path.join(folder_paths.models_dir, FOLDER)  # noqa: PTH118  as ComfyUI spells its paths
    folder_paths.add_model_folder_path(FOLDER, own)
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (
        paths,
        {ENDING},
    )  # ComfyUI lists every file otherwise


def weights_files() -> list[str]:
    """Names of the weights in models/scsnet and its fellows."""
    return folder_paths.get_filename_list(FOLDER)


def weights_path(name: str) -> Path | None:
    """The file of that name, relative to any of the folders; None where there is none."""
    path = folder_paths.get_full_path(FOLDER, name)
    return None if path is None else Path(path)


def download_folder() -> Path:
    """Where downloads go: models/scsnet."""
    return Path(folder_paths.models_dir, FOLDER)


# --- devices and types --------------------------------------------------------------------------------------------


def compute_device() -> torch.device:
    """Where networks run."""
    return mm.get_torch_device()


def offload_device() -> torch.device:
    """Where things wait that would take too much room on the compute device."""
    return mm.unet_offload_device()


def image_device() -> torch.device:
    """Where pictures wait between nodes."""
    return mm.intermediate_device()


def image_dtype() -> torch.dtype:
    """Of pictures between nodes; hosts before 0.18 know float32 only."""
    return getattr(mm, "intermediate_dtype", lambda: torch.float32)()


def network_dtype(choice: str) -> torch.dtype:
    """What "auto", "fp32", "fp16" or "bf16" means on this machine, by the host's rules and command line."""
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
        raise ValueError(f"dtype {choice} does not work on {compute_device()}; choose auto or fp32")
    return dtype


def _same(a: torch.device, b: torch.device) -> bool:
    return a.type == b.type and (a.index or 0) == (b.index or 0)


# --- the network under memory management --------------------------------------------------------------------------


def patched(net: SCSNet) -> Any:
    """The network under the host's memory management."""
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(net.eval(), load_device=compute_device(), offload_device=offload_device())


@contextmanager
def on_device(model: Model, memory: float) -> Iterator[SCSNet]:
    """The network on the compute device, with `memory` bytes free beside it.

    Interruptions take effect at the reports of progress: after each tile.
    """
    patcher = model.patcher
    mm.load_models_gpu([patcher], memory_required=memory, force_full_load=True)
    net, device = patcher.model, patcher.load_device
    # With --novram, and under dynamic memory, hosts leave weights of other packs' layers where they were.
    moved = not all(_same(p.device, device) for p in net.parameters())
    if moved:
        net.to(device)
    try:
        yield net
    finally:
        if moved:
            net.to(patcher.offload_device)


# --- memory -------------------------------------------------------------------------------------------------------


def free_memory(device: torch.device) -> float:
    """Bytes that are free there."""
    return mm.get_free_memory(device)


def place(nbytes: float) -> tuple[torch.device, bool]:
    """Where a bundle of that size waits, and whether it may be that large.

    On the compute device up to an eighth of what is free there, else on the offload device; too large is what takes
    more than a quarter of what is free even there.
    """
    device = compute_device()
    if nbytes <= free_memory(device) / 8:
        return device, True
    device = offload_device()
    return device, nbytes <= free_memory(device) / 4


def check_room(nbytes: float, what: str, device: torch.device | None = None) -> None:
    """Before a result is allocated, where pictures wait. Errors: ValueError that says how much it would take."""
    free = free_memory(device or image_device())
    if nbytes > free:
        raise ValueError(
            f"{what} would take {nbytes / 2**30:.1f} GiB, but only {free / 2**30:.1f} GiB are free. Choose a smaller "
            "scale, or render a window of it, or fewer pictures at a time."
        )


def render_tile() -> int:
    """Return the side of the largest tile to encode and render at."""
    return CPU_TILE if compute_device().type == "cpu" else TILE


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, mm.OOM_EXCEPTION):
        return True
    if hasattr(mm, "raise_non_oom"):  # newer hosts know more of them
        try:
            mm.raise_non_oom(error)
        except Exception as other:
            if other is not error:
                raise
            return "DefaultCPUAllocator" in str(error)
        return True
    return "DefaultCPUAllocator" in str(error)


class Tiles:
    """The side of the tiles that pictures are worked on in: halved each time that memory does not suffice."""

    def __init__(self) -> None:
        self.side = TILE

    def run(self, work: Callable[[int], T]) -> T:
        """work(side of the tiles).

        Errors: the host's out-of-memory error, upon which it unloads all models, with a message that says what to do.
        """
        while True:
            try:
                return work(self.side)
            except Exception as error:
                if not _out_of_memory(error):
                    raise
            # Out here the error is gone, and with it every tensor that its frames have held.
            mm.soft_empty_cache(True)
            if self.side <= SMALLEST_TILE:
                raise mm.OOM_EXCEPTION(
                    f"Out of memory on {compute_device()} even with tiles of {self.side} pixels. Lower the working size, "
                    "give fewer pictures or references at a time, or start ComfyUI with --lowvram or --cpu."
                )
            self.side //= 2


# --- progress -----------------------------------------------------------------------------------------------------


def ask() -> None:
    """Raises what ends the node, if ComfyUI was told to stop."""
    mm.throw_exception_if_processing_interrupted()


class Progress:
    """The host's progress bar over a number of pictures; every report is also where an interruption takes effect."""

    def __init__(self, pictures: int) -> None:
        self.bar = comfy.utils.ProgressBar(pictures * STEPS)
        self.shown = -1

    def between(self, start: float, stop: float) -> Report:
        """The report of the work from `start` to `stop`, counted in pictures."""

        def report(done: int, total: int) -> None:
            ask()
            value = int(STEPS * (start + (stop - start) * done / max(total, 1)))
            if value != self.shown:  # one message per step of the bar is enough
                self.shown = value
                self.bar.update_absolute(value)

        return report


def download_progress() -> Report:
    """The report of a download, in bytes."""
    bar = comfy.utils.ProgressBar(1)

    def report(done: int, total: int) -> None:
        bar.update_absolute(done, max(total, done, 1))

    return report
