"""Windows of a grid of pixels, and the blocks they are computed in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Window(NamedTuple):
    """A rectangle of a grid, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """One past the last row."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """One past the last column."""
        return self.left + self.width

    def blocks(self, height: int, width: int) -> Iterator[Window]:
        """Yield blocks of at most height x width that cover this window, row by row."""
        for top in range(self.top, self.bottom, height):
            for left in range(self.left, self.right, width):
                yield Window(
                    top, left, min(height, self.bottom - top), min(width, self.right - left)
                )


def enclose_windows(windows: Sequence[Window]) -> Window:
    """Return the smallest window that holds all of them, at least one."""
    top, left = min(w.top for w in windows), min(w.left for w in windows)
    bottom, right = max(w.bottom for w in windows), max(w.right for w in windows)
    return Window(top, left, bottom - top, right - left)


def validate_window(size: tuple[int, int], window: tuple[int, int, int, int] | None) -> Window:
    """Return `window`, or the whole grid of `size` for None. Raises ValueError if it is empty or exceeds the grid."""
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"output size must be at least 1 x 1, got {height} x {width}")
    requested = Window(0, 0, height, width) if window is None else Window(*window)
    if min(requested.height, requested.width) < 1 or min(requested.top, requested.left) < 0:
        raise ValueError(
            f"expected a window of positive size that starts inside the picture, got {requested}"
        )
    if requested.bottom > height or requested.right > width:
        raise ValueError(f"expected a window inside {height} x {width} pixels, got {requested}")
    return requested


def crop(x: Tensor, window: Window, dim: int) -> Tensor:
    """Return a view of the window along dimensions `dim` and `dim` + 1; x itself if the window is all of it."""
    starts, lengths = (window.top, window.left), (window.height, window.width)
    for d, start, length in zip((dim, dim + 1), starts, lengths, strict=True):
        if length != x.shape[d]:
            x = x.narrow(d, start, length)
    return x


def join_blocks(tiles: Iterator[tuple[Window, Tensor]]) -> Tensor:
    """Concatenate blocks (window, (B, C, n, m)), row by row, to one tensor; gradients flow through."""
    bands: dict[int, list[Tensor]] = {}
    for block, lab in tiles:
        bands.setdefault(block.top, []).append(lab)
    return torch.cat([torch.cat(band, dim=3) for band in bands.values()], dim=2)
