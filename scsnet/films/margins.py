"""The even margins of a film: bars and frames that are the same all along."""

from __future__ import annotations

from torch import Tensor

from ..config import SCSNetConfig
from ..margins import find_margins
from ..tiling import Window, enclose_windows

EVEN = 4.0  # L*, standard deviation: frames as even as that, as in fades, tell nothing of margins


class FilmMargins:
    """Finds the window inside the margins that the frames so far share; it grows, so that colours don't jump."""

    def __init__(self) -> None:
        self.inside: Window | None = None

    def add(self, luminance: Tensor, config: SCSNetConfig) -> Window | None:
        """Take normalised L (1, 1, H, W) of the next frame; return the window, None where it is the whole frame."""
        height, width = luminance.shape[2:]
        whole = Window(0, 0, height, width)
        if self.inside != whole and config.lightness_scale * luminance.std() > EVEN:
            found = find_margins(luminance, config) or whole
            self.inside = found if self.inside is None else enclose_windows([self.inside, found])
        return None if self.inside == whole else self.inside
