"""The three link types between the nodes, and the dataclasses that travel on them.

ComfyUI sends the `repr` of a node's inputs to the browser along with its errors, so each has a short one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from comfy_api.latest import io
from torch import Tensor

from ..scsnet import Features, SCSNetConfig
from ..scsnet.attention import KeysValues
from ..scsnet.features import list_tensors
from ..scsnet.tiling import Window

SCSNetModel = io.Custom("SCSNET_MODEL")
SCSLab = io.Custom("SCS_LAB")
SCSAttention = io.Custom("SCS_ATTENTION")


@dataclass(frozen=True, repr=False)
class Model:
    """A network under ComfyUI's memory management: an SCSNET_MODEL."""

    patcher: Any
    """comfy.model_patcher.ModelPatcher. ComfyUI keeps weak references to it; this one keeps the weights alive."""
    name: str
    """Where the weights came from, for messages."""

    @property
    def config(self) -> SCSNetConfig:
        """Configuration of the network."""
        return self.patcher.model.config

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, hence of the features."""
        return self.patcher.model.dtype

    def __repr__(self) -> str:
        return f"SCSNET_MODEL({self.name}, {self.dtype})"


class Bundle(list[Tensor]):
    """Base of dataclasses with tensors; as a list it holds each of these tensors once more, by reference.

    ComfyUI's RAM-pressure cache sums the CPU tensors in the lists among a node's outputs to decide what to free first.
    It does not look into other objects.
    """

    def __post_init__(self) -> None:
        self.extend(list_tensors(self))


@dataclass(frozen=True, repr=False, eq=False)
class Lab(Bundle):
    """Colorized pictures that can be rendered at any size: an SCS_LAB."""

    model: Model
    features: tuple[Features, ...]
    """Features of the pictures, in chunks of a few, in order, all of one size, on the host's image device."""
    lab: tuple[Tensor, ...]
    """Per chunk: CIE LAB (b, 3, H, W) float32 at the pictures' size, as predicted; on the GPU where it fits."""
    strength: float
    """Factor on the chroma, applied when rendering."""
    alpha: Tensor | None
    """Alpha channel (B, 1, H, W) of the pictures, 0..1."""

    @property
    def count(self) -> int:
        """Number of pictures."""
        return sum(chunk.luminance.shape[0] for chunk in self.features)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.features[0].size

    def __repr__(self) -> str:
        return f"SCS_LAB({self.count} pictures of {self.size[1]} x {self.size[0]} pixels)"


@dataclass(frozen=True, repr=False, eq=False)
class Attention(Bundle):
    """Queries and keys_values of a colorization by reference: an SCS_ATTENTION."""

    model: Model
    queries: tuple[Tensor, ...]
    """F_s of the pictures (b, 4 width, h/4, w/4), in chunks of a few."""
    keys_values: tuple[tuple[KeysValues, ...], ...]
    """Keys and values of the references: one item where they serve every picture, else one per chunk."""
    shape: tuple[int, int]
    """Height and width of the pictures at the working size, without margins."""
    size: tuple[int, int]
    """Height and width of the pictures."""
    inside: Window | None
    """What the network saw of the pictures, in their pixels; None: all of them."""
    sources: Tensor
    """Thumbnails of the pictures (B, 3, h, w), RGB 0..1, without margins."""
    references: tuple[Tensor, ...]
    """Thumbnails of each reference (1 or B, 3, h, w), RGB 0..1."""
    reference_shape: tuple[int, int]
    """Height and width of the references at the working size."""

    def __repr__(self) -> str:
        return f"SCS_ATTENTION({len(self.sources)} pictures, {len(self.references)} references)"


T = TypeVar("T", Model, Lab, Attention)

_SOURCES = {
    Model: ("SCSNET_MODEL", "Load SCSNet"),
    Lab: ("SCS_LAB", "an SCS Colorize node"),
    Attention: ("SCS_ATTENTION", "SCS Colorize (reference)"),
}


def require_type(value: object, kind: type[T], name: str) -> T:
    """Return `value` unchanged; raise ValueError where it is not a `kind`.

    ComfyUI compares only the names of link types, and other packs may use the same names.
    """
    if isinstance(value, kind):
        return value
    link, node = _SOURCES[kind]
    raise ValueError(
        f"{name}: expected an {link} from {node}, got {type(value).__name__}. Connect it to that node."
    )
