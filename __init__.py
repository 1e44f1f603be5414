"""SCSNet for ComfyUI: the nodes are in nodes/, the network in scsnet/.

There is no NODE_CLASS_MAPPINGS: where it exists, ComfyUI never calls comfy_entrypoint.
"""

import logging
import re

WEB_DIRECTORY = "./web"
OLDEST_HOST = (0, 3, 64)


def _host() -> tuple[int, ...]:
    """Version of the ComfyUI that is importing this; (0,) where it is too old for the node API used here."""
    try:
        from comfy_api.latest import ComfyExtension, io  # noqa: F401, TID251
        from comfyui_version import __version__
    except ImportError:
        return (0,)
    numbers = re.match(
        r"(\d+)\.(\d+)(?:\.(\d+))?", __version__
    )  # ignores endings: rc1, -beta, +cu128
    return tuple(int(part or 0) for part in numbers.groups()) if numbers else (0,)


if _host() >= OLDEST_HOST:
    from .nodes import comfy_entrypoint

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
else:
    logging.getLogger(__name__).error(
        "SCSNet needs ComfyUI %s or newer. Update ComfyUI; until then this pack has no nodes.",
        ".".join(map(str, OLDEST_HOST)),
    )
    NODE_CLASS_MAPPINGS: dict[str, type] = {}  # an old ComfyUI takes this as a pack without nodes
    __all__ = ["NODE_CLASS_MAPPINGS"]
