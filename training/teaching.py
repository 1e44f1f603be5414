"""What automatic colours are plausible: a network that `training/teacher.py` has trained teaches phi.

It says of each of 16 x 16 cells of a gray photo how probable each class of colour is. Their mean is what squared
differences ask for, and is olive where grass is as likely as earth. A temperature below 1 leans to the likelier ones
(the annealed mean of Zhang et al. 2016).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scsnet.color import rgb_to_gray
from training.efficientnet import EfficientNetLite
from training.losses import compute_color_weight, huber
from training.models.backbones import tensors

SIZE = 256  # pixels of the side that a teacher looks at
CELLS = SIZE // 16
SOFTNESS = 40.0  # CIE units below which a difference counts by its square
DROPPED = 0.2  # of the features while a head learns


class Head(nn.Module):
    """Features at two strides, with where they are -> how probable each class of colour is."""

    def __init__(self, finer: int, top: int, classes: int, hidden: int = 448) -> None:
        super().__init__()
        self.here = nn.Conv2d(finer + 2, hidden, 1)
        self.meaning = nn.Conv2d(top, hidden, 1, bias=False)
        self.everywhere = nn.Linear(top, hidden)
        self.around = nn.ModuleList(
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden) for _ in range(2)
        )
        self.mixed = nn.ModuleList(nn.Conv2d(hidden, hidden, 1) for _ in range(2))
        self.classes = nn.Conv2d(hidden, classes, 1)

    def forward(self, finer: Tensor, top: Tensor) -> Tensor:
        """(B, c, h, w) and (B, C, h / 2, w / 2) -> logits (B, classes, h, w)."""
        batch, _, h, w = finer.shape
        y, x = (torch.linspace(-1, 1, n, device=finer.device) for n in (h, w))
        place = torch.stack(torch.meshgrid(y, x, indexing="ij")).expand(batch, -1, -1, -1)
        finer, top = (F.dropout2d(features, DROPPED, self.training) for features in (finer, top))
        z = self.here(torch.cat([finer, place.to(finer.dtype)], 1))
        z = z + F.interpolate(self.meaning(top), (h, w), mode="bilinear")
        z = F.gelu(z + self.everywhere(top.mean((2, 3)))[..., None, None])
        for around, mixed in zip(self.around, self.mixed, strict=True):
            z = z + F.gelu(F.dropout(mixed(around(z)), DROPPED, self.training))
        return self.classes(z)


class Teacher(nn.Module):
    """EfficientNet-Lite and a head. `palette` (Q, 2): ab of the classes, CIE units."""

    palette: Tensor

    def __init__(self, features: Mapping[str, Tensor], palette: Tensor) -> None:
        super().__init__()
        self.features = EfficientNetLite(features)
        self.head = Head(*self.features.channels, len(palette))
        self.register_buffer("palette", palette)

    @classmethod
    def load(cls, source: str) -> Teacher:
        """One that has learned, frozen. Errors: those of `backbones.tensors`; ValueError for another file."""
        weights = tensors(source)
        prefix = "features."
        try:
            teacher = cls(
                {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)},
                weights["palette"],
            )
            teacher.load_state_dict(weights)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{source} is not a file of training/teacher.py: {error}") from error
        return teacher.requires_grad_(False).eval()

    def forward(self, rgb: Tensor) -> Tensor:
        """sRGB (B, 3, 256, 256) in 0..1, of which only L is looked at -> logits (B, Q, 16, 16)."""
        return self.head(*self.features(rgb_to_gray(rgb)))

    def expected(
        self, rgb: Tensor, temperature: float = 1.0, rebalance: float = 0.0, coldness: float = 0.0
    ) -> Tensor:
        """The (annealed) mean of the plausible colours: ab (B, 2, 16, 16) in CIE units, float32.

        Each counts as much as its `losses.compute_color_weight`.
        """
        counts = compute_color_weight(self.palette, rebalance, coldness).log()[
            ..., None
        ]  # (Q, 1, 1)
        probability = (self(rgb).float() / temperature + counts).softmax(1)
        return torch.einsum("bqhw,qc->bchw", probability, self.palette)


def cells(ab: Tensor) -> Tensor:
    """ab (B, 2, H, W) -> means of 16 x 16 cells."""
    return F.adaptive_avg_pool2d(ab, CELLS)


def difference(made: Tensor, wanted: Tensor, redness: float = 1.0) -> Tensor:
    """Of ab in CIE units, softened, scaled as Eq. 5: asks for the mean of the plausible colours.

    `redness`: how much a weighs against b.
    """
    a, b = huber((made - wanted).abs(), SOFTNESS).mean((0, 2, 3))
    return (redness * a + b) / 2 / 110
