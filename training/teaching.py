"""What automatic colours are plausible: a head on MobileNet, which `training/teacher.py` has trained, teaches phi."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scsnet.color import gray

from .backbones import MobileNet, tensors
from .losses import softened

SIZE = 224  # pixels of the side that MobileNet looks at, as it was trained
CELLS = SIZE // 16
SOFTNESS = 40.0  # CIE units below which a difference counts by its square


class Head(nn.Module):
    """MobileNet's features of a gray photo, with where they are -> coarse ab."""

    def __init__(self, hidden: int = 384) -> None:
        super().__init__()
        self.here = nn.Conv2d(MobileNet.CHANNELS + 2, hidden, 1)
        self.everywhere = nn.Linear(MobileNet.CHANNELS, hidden)
        self.around = nn.ModuleList(
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden) for _ in range(2)
        )
        self.mixed = nn.ModuleList(nn.Conv2d(hidden, hidden, 1) for _ in range(2))
        self.ab = nn.Conv2d(hidden, 2, 1)
        for parameter in self.ab.parameters():
            nn.init.zeros_(parameter)  # gray

    def forward(self, features: Tensor) -> Tensor:
        """pw11 (B, 512, h, w) -> ab (B, 2, h, w) in CIE units."""
        batch, _, h, w = features.shape
        y, x = (torch.linspace(-1, 1, n, device=features.device) for n in (h, w))
        place = torch.stack(torch.meshgrid(y, x, indexing="ij")).expand(batch, -1, -1, -1)
        features = F.dropout2d(features, 0.3, self.training)
        mean = self.everywhere(features.mean((2, 3)))
        z = F.gelu(
            self.here(torch.cat([features, place.to(features.dtype)], 1)) + mean[..., None, None]
        )
        for around, mixed in zip(self.around, self.mixed, strict=True):
            z = z + F.gelu(F.dropout(mixed(around(z)), 0.3, self.training))
        return self.ab(z) * 20


class Teacher(nn.Module):
    """MobileNet and a head that has learned; frozen."""

    def __init__(self, features: str, head: str) -> None:
        super().__init__()
        self.mobilenet, self.head = MobileNet(features), Head()
        try:
            self.head.load_state_dict(tensors(head))
        except RuntimeError as error:
            raise ValueError(f"{head} is not a file of training/teacher.py: {error}") from error
        self.requires_grad_(False).eval()

    def forward(self, rgb: Tensor) -> Tensor:
        """sRGB (B, 3, 224, 224) in 0..1, of which only L is looked at -> ab (B, 2, 14, 14) in CIE units."""
        return self.head(self.mobilenet(gray(rgb))).float()


def cells(ab: Tensor) -> Tensor:
    """ab (B, 2, H, W) -> means of 14 x 14 cells."""
    return F.adaptive_avg_pool2d(ab, CELLS)


def difference(made: Tensor, wanted: Tensor, redness: float = 1.0) -> Tensor:
    """Of ab in CIE units, softened, scaled as Eq. 5: asks for the mean of the plausible colours.

    `redness`: how much a weighs against b.
    """
    a, b = softened((made - wanted).abs(), SOFTNESS).mean((0, 2, 3))
    return (redness * a + b) / 2 / 110
