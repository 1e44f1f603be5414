"""CPM, the continuous pixel mapping of Eq. 3, and the pixel-shuffle head that Table 5 compares it with."""

from .head import CPM, Axis, build_axis
from .pixel_shuffle import PixelShuffle

__all__ = ["CPM", "Axis", "PixelShuffle", "build_axis"]
