"""SCSNet: colorization and continuous super-resolution of gray pictures in one pass (AAAI 2022)."""

from .config import SCSNetConfig
from .features import Features, ReferenceFeatures
from .model import SCSNet
from .pipeline import encode_picture, encode_references, output_size, render

__version__ = "0.1.0"

__all__ = [
    "Features",
    "ReferenceFeatures",
    "SCSNet",
    "SCSNetConfig",
    "encode_picture",
    "encode_references",
    "output_size",
    "render",
]
