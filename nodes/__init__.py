"""The nodes of SCSNet for ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import host
from .attention import AttentionMapViz
from .colorize import SCSColorizeAuto, SCSColorizeReference
from .hints import SCSColorHints
from .load import LoadSCSNet
from .upscale import SCSContinuousUpscale


class SCSNetExtension(ComfyExtension):
    """All nodes of the pack. Saved workflows name them by their ids, which therefore never change."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the nodes; ComfyUI calls this once, at its start."""
        return [
            LoadSCSNet,
            SCSColorizeAuto,
            SCSColorizeReference,
            SCSContinuousUpscale,
            AttentionMapViz,
            SCSColorHints,
        ]


async def comfy_entrypoint() -> ComfyExtension:
    """Register the model folder and return the extension; called by ComfyUI."""
    host.register_folder()
    return SCSNetExtension()
