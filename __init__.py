"""SCSNet for ComfyUI: the nodes are in nodes/, the network in scsnet/.

There is no NODE_CLASS_MAPPINGS: where it exists, ComfyUI never calls comfy_entrypoint.
"""

import logging
import re

WEB_DIRECTORY = "./web"
OLDEST_HOST = (0, 3, 64)


def _read_host_version() -> tuple[int, ...]:
    """Return major, minor and patch of the importing ComfyUI; () for one without the node API that nodes/ uses.

    Suffixes do not count: 0.3.65rc1, 0.3.64-rc1 and 0.3.70+cu128 are 0.3.65, 0.3.64 and 0.3.70.
    """
    try:
        from comfy_api.latest import ComfyExtension, io  # noqa: F401, TID251
        from comfyui_version import __version__
    except ImportError:
        return ()
    match = re.match(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?", __version__)
    return tuple(int(part or 0) for part in match.groups()) if match else ()


if _read_host_version() >= OLDEST_HOST:
    from .nodes import comfy_entrypoint

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
else:
    logging.getLogger(__name__).error(
        "SCSNet needs ComfyUI %s or newer. Update ComfyUI; until then this pack has no nodes.",
        ".".join(map(str, OLDEST_HOST)),
    )
    NODE_CLASS_MAPPINGS: dict[str, type] = {}  # an old ComfyUI takes this as a pack without nodes
    __all__ = ["NODE_CLASS_MAPPINGS"]
