"""Conversion of ComfyUI's IMAGE to the network's channels-first planes.

IMAGE: float (B, H, W, C), sRGB 0..1, C = 1 (gray), 3 (RGB) or 4 (RGB and alpha). Planes: (B, C, H, W).
Nothing in here needs ComfyUI.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = (1, 3, 4)  # gray, RGB, RGB with alpha


class Picture(NamedTuple):
    """Colour and alpha planes of an IMAGE, as views of it."""

    rgb: Tensor
    """Gray or RGB (B, 1 or 3, H, W)."""
    alpha: Tensor | None
    """Alpha (B, 1, H, W); None where the IMAGE has none."""

    @property
    def count(self) -> int:
        """Number of pictures."""
        return self.rgb.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.rgb.shape[2], self.rgb.shape[3]


def to_planes(image: object, name: str) -> Picture:
    """Split an IMAGE (B, H, W, C) into planes. Raises ValueError, naming the input, for anything else."""
    if isinstance(image, Sequence) and image and all(isinstance(item, Tensor) for item in image):
        sizes = sorted({tuple(item.shape[-3:-1]) for item in image})
        raise ValueError(
            f"{name}: expected one IMAGE, got a list of {len(image)} with (height, width) {sizes}. Pictures of "
            "different sizes cannot share a batch: bring them to one size (ImageScale) and join them (ImageBatch)."
        )
    if not isinstance(image, Tensor):
        raise ValueError(
            f"{name}: expected an IMAGE, got {type(image).__name__}. Connect a node with an IMAGE output."
        )
    if image.ndim != 4 or image.shape[3] not in CHANNELS:
        raise ValueError(
            f"{name}: expected an IMAGE of shape (pictures, height, width, channels) with {list(CHANNELS)} channels, "
            f"got {tuple(image.shape)}."
        )
    if 0 in image.shape:
        raise ValueError(
            f"{name}: the batch is empty, its shape is {tuple(image.shape)}. Give at least one picture."
        )
    planes = image.movedim(3, 1)  # (B, H, W, C) -> (B, C, H, W)
    return Picture(planes[:, :3], planes[:, 3:]) if planes.shape[1] == 4 else Picture(planes, None)


def to_mask(mask: object, reference: Picture, name: str) -> Tensor:
    """Return a MASK as planes (1 or B, 1, H, W) of the size of the reference (B, C, H, W), to which it is resized.

    Raises ValueError, naming the input, for anything else, another number of masks, or one that marks nothing.
    """
    if not isinstance(mask, Tensor) or mask.ndim not in (2, 3) or 0 in mask.shape:
        got = f"shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"{name}: expected a MASK of shape (masks, height, width), got {got}.")
    planes = mask.float().nan_to_num(0.0).reshape(-1, 1, *mask.shape[-2:])
    if planes.shape[0] not in (1, reference.count):
        raise ValueError(
            f"{name}: expected one mask, or one for each of {reference.count} references, got {planes.shape[0]}."
        )
    if planes.flatten(1).amax(1).min() < 0.5:
        raise ValueError(
            f"{name}: the mask marks nothing. Mark what may give its colours, or disconnect the mask."
        )
    return F.interpolate(planes, reference.size, mode="nearest-exact")


def to_float(planes: Tensor, device: torch.device) -> Tensor:
    """Convert planes to float32 in 0..1 on `device`; NaN and -inf become 0, +inf becomes 1."""
    return planes.to(device=device, dtype=torch.float32).nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)
