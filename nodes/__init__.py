"""The nodes of SCSNet for ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import host
from .attention import AttentionMapViz
from .colorize import SCSColorizeAuto, SCSColorizeReference
from .load import LoadSCSNet
from .upscale import SCSContinuousUpscale


class SCSNetExtension(ComfyExtension):
    """All of the pack's nodes; their ids never change."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Called once, when ComfyUI starts."""
        return [
            LoadSCSNet,
            SCSColorizeAuto,
            SCSColorizeReference,
            SCSContinuousUpscale,
            AttentionMapViz,
        ]


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI calls."""
    host.register_folder()
    return SCSNetExtension()
