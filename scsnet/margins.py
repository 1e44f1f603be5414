"""Even margins around scanned photos: paper, mounts and slide frames, found before the network sees them.

A margin of one pixel changes the colours of a whole photo, which the network judges as one scene. What is found here is
left out of what the colour branch sees and stays neutral in the result. Turned, deckled or uneven margins are not found.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .color import denormalize_lab
from .config import SCSNetConfig
from .tiling import Window

LARGEST = 0.2  # of a side
SMALLEST_SIDE = 16  # pixels; smaller pictures have no margins
SPREAD = 2.5  # largest standard deviation along a line of a margin, L*
# The same where L* is neither nearly black nor nearly white: skies are smooth too.
SPREAD_OF_GRAYS = 1.0
GRAYS = (12.0, 90.0)  # L*
DRIFT = 3.0  # largest difference of the mean L* of two lines of a margin
STEP = 6.0  # L*: half of the pixels of the photo's first line differ more than this from the margin
TRANSITION = 2  # lines between margin and photo that belong to neither


def find_margins(luminance: Tensor, config: SCSNetConfig) -> Window | None:
    """Return the part of normalised L (B, 1, H, W) inside the even margins that all pictures share; None without margins.

    A margin is found only where it is certain: lines of one even gray along a whole side, which end at an edge along at
    least half of it, within 20 % of the side.
    """
    height, width = luminance.shape[2:]
    if min(height, width) < SMALLEST_SIDE:
        return None
    planes = luminance[:, 0]
    top, left = _count_margin_lines(planes, config), _count_margin_lines(planes.mT, config)
    upside_down = planes.flip(1, 2)
    bottom = _count_margin_lines(upside_down, config)
    right = _count_margin_lines(upside_down.mT, config)
    if not top + bottom + left + right:
        return None
    return Window(top, left, height - top - bottom, width - left - right)


def _count_margin_lines(planes: Tensor, config: SCSNetConfig) -> int:
    """Return the number of margin lines before the first line of the photo, in all of the planes (B, lines, pixels)."""
    depth = int(LARGEST * planes.shape[1])
    strip = denormalize_lab(planes[:, None, : depth + TRANSITION + 1], config)[:, 0]
    first = strip[:, 0].mean(1)  # (B,)
    levels, spreads = strip.mean(2), strip.std(2)
    differing = ((strip - first[:, None, None]).abs() > STEP).float().mean(2)
    pictures = torch.stack([levels, spreads, differing], dim=1).tolist()  # one transfer
    return min(_count_lines(a, b, c, depth) for a, b, c in pictures)


def _count_lines(
    levels: list[float], spreads: list[float], differing: list[float], depth: int
) -> int:
    largest = SPREAD_OF_GRAYS if GRAYS[0] < levels[0] < GRAYS[1] else SPREAD
    count = 0
    while count < len(levels) and (
        spreads[count] <= largest and abs(levels[count] - levels[0]) <= DRIFT
    ):
        count += 1
    if not 0 < count <= depth:
        return 0
    for inside in range(count, min(count + TRANSITION + 1, len(levels))):
        if differing[inside] >= 0.5:
            return inside
    return 0
