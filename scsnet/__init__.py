"""SCSNet: colorization and continuous super-resolution of gray pictures in one pass (AAAI 2022).

Public names are imported on first use, so that the command line prints help and errors without importing torch.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # not typing's: until the command line runs, Ctrl-C would show a traceback
if TYPE_CHECKING:
    from .config import SCSNetConfig
    from .features import Features, ReferenceFeatures
    from .films.steadiness import SteadyColors
    from .model import SCSNet
    from .pipeline import (
        decode_lab,
        encode_picture,
        encode_references,
        finish_lab,
        output_size,
        render,
    )

__version__ = "0.1.0"

__all__ = [
    "Features",
    "ReferenceFeatures",
    "SCSNet",
    "SCSNetConfig",
    "SteadyColors",
    "decode_lab",
    "encode_picture",
    "encode_references",
    "finish_lab",
    "output_size",
    "render",
]

_HOME = {
    "SCSNetConfig": "config",
    "SCSNet": "model",
    "Features": "features",
    "ReferenceFeatures": "features",
    "SteadyColors": "films.steadiness",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME.get(name, 'pipeline')}", __name__), name)
