"""CPM, the continuous pixel mapping of Eq. 3, and the pixel-shuffle head that Table 5 compares it with."""

from .dispatch import enable_triton
from .grid import Axis, build_axis
from .head import BLOCK, CPM
from .pixel_shuffle import PixelShuffle

__all__ = ["BLOCK", "CPM", "Axis", "PixelShuffle", "build_axis", "enable_triton"]
