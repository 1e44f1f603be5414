"""What travels between the nodes: three types of links, and the dataclasses on them.

Each says in a few words what it is: ComfyUI sends the text of all of a node's inputs along with its errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from comfy_api.latest import io
from torch import Tensor

from ..scsnet import Features, SCSNetConfig
from ..scsnet.attention import Memory

SCSNetModel = io.Custom("SCSNET_MODEL")
SCSLab = io.Custom("SCS_LAB")
SCSAttention = io.Custom("SCS_ATTENTION")


@dataclass(frozen=True, repr=False)
class Model:
    """A network under ComfyUI's memory management."""

    patcher: Any
    """comfy.model_patcher.ModelPatcher. ComfyUI itself keeps weak references only: who holds this, keeps the weights."""
    name: str
    """Where the weights came from, for messages."""

    @property
    def config(self) -> SCSNetConfig:
        """Of the network."""
        return self.patcher.model.config

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, hence of the features."""
        return self.patcher.model.dtype

    def __repr__(self) -> str:
        return f"SCSNET_MODEL({self.name}, {self.dtype})"


@dataclass(frozen=True, repr=False)
class Lab:
    """Colorized pictures that can still be rendered at any size: an SCS_LAB."""

    model: Model
    features: tuple[Features, ...]
    """The pictures in chunks of a few, in order. All of one size."""
    lab: tuple[Tensor, ...]
    """Per chunk: CIE LAB (b, 3, h, w) float32 at the working size, chroma as predicted."""
    strength: float
    """Factor on the chroma, applied when rendering."""
    alpha: Tensor | None
    """(B, 1, H, W), to be resized along."""

    @property
    def count(self) -> int:
        """How many pictures."""
        return sum(chunk.luminance.shape[0] for chunk in self.features)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures that were colorized."""
        return self.features[0].size

    def __repr__(self) -> str:
        return f"SCS_LAB({self.count} pictures of {self.size[1]} x {self.size[0]} pixels)"


@dataclass(frozen=True, repr=False)
class Attention:
    """What colorization by reference looked at: an SCS_ATTENTION."""

    model: Model
    queries: tuple[Tensor, ...]
    """F_s of the pictures (b, 4 width, h/4, w/4), in chunks of a few."""
    memories: tuple[tuple[Memory, ...], ...]
    """Of the references: one item where they serve every picture, else one per chunk."""
    shape: tuple[int, int]
    """Height and width at which the network saw the pictures."""
    sources: Tensor
    """The pictures themselves (B, 3, h, w), RGB 0..1, small enough for a figure."""
    references: tuple[Tensor, ...]
    """Each reference (1 or B, 3, h, w), RGB 0..1, small enough for a figure."""
    reference_shape: tuple[int, int]
    """Height and width at which the network saw the references."""

    def __repr__(self) -> str:
        return f"SCS_ATTENTION({len(self.sources)} pictures, {len(self.references)} references)"


T = TypeVar("T", Model, Lab, Attention)

_MAKERS = {
    Model: ("SCSNET_MODEL", "LoadSCSNet"),
    Lab: ("SCS_LAB", "SCSColorizeAuto or SCSColorizeReference"),
    Attention: ("SCS_ATTENTION", "SCSColorizeReference"),
}


def checked(value: object, kind: type[T], name: str) -> T:
    """`value` if it is what the input expects. Errors: ValueError that says which node makes it.

    ComfyUI compares the names of link types only, and other packs may use the same ones.
    """
    if isinstance(value, kind):
        return value
    link, maker = _MAKERS[kind]
    raise ValueError(
        f"{name}: expected an {link} of {maker}, got {type(value).__name__}. Connect it to that node."
    )
