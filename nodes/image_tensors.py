"""ComfyUI's IMAGE <-> planes. Nothing else, and nothing of ComfyUI.

IMAGE: float (B, H, W, C), sRGB 0..1, C = 1 (gray), 3 (RGB) or 4 (RGB and alpha). Planes: (B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

COLOURS = {1: "gray", 3: "RGB", 4: "RGB with alpha"}


class Picture(NamedTuple):
    """An IMAGE taken apart, as views: no pixel is copied."""

    rgb: Tensor
    """(B, 1 or 3, H, W)."""
    alpha: Tensor | None
    """(B, 1, H, W)."""

    @property
    def count(self) -> int:
        """Pictures in the batch."""
        return self.rgb.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.rgb.shape[2], self.rgb.shape[3]


def to_planes(image: object, name: str) -> Picture:
    """IMAGE (B, H, W, C) -> planes. Errors: ValueError that names the input and what it holds."""
    if isinstance(image, Sequence) and image and all(isinstance(item, Tensor) for item in image):
        sizes = sorted({tuple(item.shape[-3:-1]) for item in image})
        raise ValueError(
            f"{name}: expected one IMAGE, got a list of {len(image)} with (height, width) {sizes}. Pictures of "
            "different sizes cannot share a batch: bring them to one size (ImageScale) and join them (ImageBatch)."
        )
    if not isinstance(image, Tensor):
        raise ValueError(
            f"{name}: expected an IMAGE, got {type(image).__name__}. Connect a node that gives an IMAGE."
        )
    if image.ndim != 4 or image.shape[3] not in COLOURS:
        raise ValueError(
            f"{name}: expected an IMAGE of shape (pictures, height, width, channels) with {sorted(COLOURS)} channels, "
            f"got {tuple(image.shape)}."
        )
    if 0 in image.shape:
        raise ValueError(
            f"{name}: the batch is empty, its shape is {tuple(image.shape)}. Give at least one picture."
        )
    planes = image.movedim(3, 1)  # (B, H, W, C) -> (B, C, H, W)
    return Picture(planes[:, :3], planes[:, 3:]) if planes.shape[1] == 4 else Picture(planes, None)


def to_float(planes: Tensor, device: torch.device) -> Tensor:
    """Planes as the network takes them: float32 in 0..1, on its device; what is not a number becomes black."""
    return planes.to(device=device, dtype=torch.float32).nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)
