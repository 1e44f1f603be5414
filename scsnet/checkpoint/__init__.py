"""Weights files: load, save and describe them, bundled, local or from the Hugging Face Hub."""

from .safetensors_file import FormatError
from .weights_file import BUNDLED, FORMAT, Info, load, read_info, resolve, save

__all__ = ["BUNDLED", "FORMAT", "FormatError", "Info", "load", "read_info", "resolve", "save"]
