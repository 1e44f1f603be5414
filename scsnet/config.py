"""`SCSNetConfig`, the hyperparameters of a network, saved in every weights file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Attention = Literal["pyramid_valve", "basic", "none"]
Head = Literal["cpm", "pixel_shuffle"]
Norm = Literal["none", "instance"]
Alignment = Literal["centre", "paper"]
Prior = Literal["none", "efficientnet_lite2"]

_CHOICES = {
    "attention": get_args(Attention),
    "head": get_args(Head),
    "norm": get_args(Norm),
    "cpm_align": get_args(Alignment),
    "prior": get_args(Prior),
}
_RANGES = {
    "attention_scale": (0.0, 1000.0),
    "width": (4, 512),
    "depth": (0, 128),
    "lightness_centre": (-1000.0, 1000.0),
    "lightness_scale": (1e-3, 1000.0),
    "chroma_scale": (1e-3, 1000.0),
    "working_size": (4, 4096),
}


@dataclass(frozen=True, kw_only=True)
class SCSNetConfig:
    """Hyperparameters of the network. The defaults are those of the shipped weights, but for `prior`.

    `paper()` follows the paper exactly; the options in which it differs from the defaults add or remove no parameters.
    """

    attention: Attention = "pyramid_valve"
    """Cross attention: PVCAttn of Fig. 5, BCAttn of Table 5 ("basic"), or F_s + F_r ("none")."""
    head: Head = "cpm"
    """Super-resolution head: CPM of Fig. 6, or a fixed x4 pixel shuffle (the ablation of Table 5)."""
    norm: Norm = "none"
    """"instance" (Table 8) removes the mean colour after the first convolution; "none" keeps it."""
    residual: bool = True
    """x + f(x) around every extractor convolution and around SAttn."""
    cosine_attention: bool = True
    """Normalise queries and keys to unit length before their product; the paper does not."""
    attention_scale: float = 30.0
    """Factor on the products before the softmax; 1 in the paper, without 1/sqrt(d)."""
    luminance_skip: bool = True
    """Predict L as a residual over the bilinearly resampled input L."""
    cpm_align: Alignment = "centre"
    """Sampling position of output pixel j: its centre, or j / (Wt - 1) of Eq. 3 ("paper")."""
    width: int = 64
    """Channels at full size; 2 and 4 times as many at half and quarter size."""
    depth: int = 16
    """Residual blocks of the texture encoder psi_E."""
    lightness_centre: float = 50.0
    """The normalised L plane is (L* - lightness_centre) / lightness_scale."""
    lightness_scale: float = 50.0
    """See `lightness_centre`; L* is 0..100."""
    chroma_scale: float = 110.0
    """The normalised a and b planes are a* / chroma_scale and b* / chroma_scale."""
    working_size: int = 128
    """Side in pixels of the square pictures that the colour branch was trained on."""
    prior: Prior = "none"
    """Semantic prior: a network trained on ImageNet whose features are added to F_s and F_r. The paper has none."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{name} must be a number, got {value!r}")
            if isinstance(low, int) and not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
            if not low <= value <= high:
                raise ValueError(f"{name} must be between {low} and {high}, got {value!r}")
        for name in ("residual", "cosine_attention", "luminance_skip"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if self.width % 4:
            raise ValueError(f"width must be a multiple of 4, got {self.width}")

    @classmethod
    def paper(cls) -> SCSNetConfig:
        """Table 8 and Eq. 1-3 as printed."""
        return cls(
            norm="instance",
            residual=False,
            cosine_attention=False,
            attention_scale=1.0,
            luminance_skip=False,
            cpm_align="paper",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> SCSNetConfig:
        """The inverse of `to_dict`; ValueError on missing, unknown or absurd fields."""
        if not isinstance(values, dict):
            raise ValueError(f"config must be a mapping, got {type(values).__name__}")
        values = {"prior": "none", **values}  # a file without the field has no prior
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"config has unknown fields {unknown}, expected {sorted(known)}")
        if missing := sorted(known - set(values)):
            raise ValueError(f"config lacks the fields {missing}")
        return cls(**values)
