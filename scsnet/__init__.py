"""SCSNet: colorization and continuous super-resolution of gray pictures in one pass (AAAI 2022)."""

from .config import SCSNetConfig
from .features import Features, ReferenceFeatures
from .model import SCSNet

__all__ = ["Features", "ReferenceFeatures", "SCSNet", "SCSNetConfig"]
