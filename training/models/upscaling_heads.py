"""Heads for super-resolution that map the same features to a larger picture: CPM, and heads written after other papers.

    Meta-SR:   Hu et al., "Meta-SR: A Magnification-Arbitrary Network for Super-Resolution", CVPR 2019
    LIIF:      Chen et al., "Learning Continuous Image Representation with Local Implicit Image Function",
               CVPR 2021
    sub-pixel: Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
               Convolutional Neural Network", CVPR 2016, as in RDN

B pictures of C channels, H x W pixels, output n x m. The papers have C = 64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise, product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scsnet.cpm import BLOCK, CPM, build_axis
from scsnet.tiling import Window
from training.config.upscaling import Sizes

CHANNELS = 64


class MetaSR(nn.Module):
    """Meta-Upscale: a network predicts k x k x C x 3 weights of a convolution for every output pixel.

    The authors predict them for the whole picture at once; `pixels` limits how many output pixels are computed at a time.
    """

    def __init__(self, channels: int = CHANNELS, kernel: int = 3, hidden: int = 256) -> None:
        super().__init__()
        self.kernel = kernel
        self.predict = nn.Sequential(
            nn.Linear(3, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, kernel**2 * channels * 3)
        )

    def offsets(self, n_in: int, n_out: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the input pixel floor(i / r) of each output pixel i along an axis, and i / r - floor(i / r)."""
        i = torch.arange(n_out, device=device)
        return (i * n_in).div(n_out, rounding_mode="floor"), ((i * n_in) % n_out) / n_out

    def forward(self, features: Tensor, size: tuple[int, int], pixels: int | None = None) -> Tensor:
        """Map features (B, C, H, W) to planes (B, 3, n, m)."""
        batch, _, height, width = features.shape
        patches = F.unfold(features, self.kernel, padding=self.kernel // 2).mT.contiguous()
        row, down = self.offsets(height, size[0], features.device)
        column, right = self.offsets(width, size[1], features.device)
        out = features.new_empty(batch, *size, 3)
        step = size[0] if pixels is None else max(1, pixels // size[1])
        for top in range(0, size[0], step):
            rows = slice(top, top + step)
            scale = torch.full((), height / size[0], device=features.device)
            offset = torch.stack(torch.broadcast_tensors(down[rows, None], right, scale), dim=-1)
            weights = self.predict(offset.view(-1, 3).to(features.dtype))  # (P, k k C 3)
            weights = weights.view(len(weights), -1, 3)
            source = (row[rows, None] * width + column).flatten()
            for picture in range(batch):
                near = patches[picture].index_select(0, source)[:, None]  # (P, 1, k k C)
                out[picture, rows] = torch.bmm(near, weights).view(-1, size[1], 3)
        return out.permute(0, 3, 1, 2)


class LIIF(nn.Module):
    """Local implicit image function: 3x3 feature unfolding, local ensemble, cell decoding."""

    PIXELS = 30_000  # queries at a time, as its authors evaluate

    def __init__(self, channels: int = CHANNELS, hidden: int = 256) -> None:
        super().__init__()
        widths = [9 * channels + 2 + 2, *[hidden] * 4]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU(inplace=True)]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, 3))

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Map features (B, C, H, W) to planes (B, 3, n, m)."""
        batch = features.shape[0]
        unfolded = F.unfold(features, 3, padding=1).mT.contiguous()  # (B, H W, 9 C)
        out = features.new_empty(batch, *size, 3)
        step = max(1, self.PIXELS // size[1])
        for top in range(0, size[0], step):
            bottom = min(top + step, size[0])
            for picture in range(batch):
                band = self._band(unfolded[picture], features.shape[2:], size, top, bottom)
                out[picture, top:bottom] = band.view(-1, size[1], 3)
        return out.permute(0, 3, 1, 2)

    def _band(
        self, unfolded: Tensor, shape: torch.Size, size: tuple[int, int], top: int, bottom: int
    ) -> Tensor:
        """Compute output rows top..bottom, (P, 3): the mean of four predictions, weighted by the opposite areas."""
        neighbours = list(_neighbours(shape, size, top, bottom, unfolded.device))
        cell = unfolded.new_tensor([2 * shape[0] / size[0], 2 * shape[1] / size[1]])
        areas = [(offset[:, :1] * offset[:, 1:]).abs() + 1e-9 for _, offset in neighbours]
        whole = torch.stack(areas).sum(0)
        total = unfolded.new_zeros(len(whole), 3)
        for (source, offset), opposite in zip(neighbours, reversed(areas), strict=True):
            query = [unfolded.index_select(0, source), offset.to(unfolded.dtype)]
            prediction = self.mlp(torch.cat([*query, cell.expand(len(source), -1)], dim=1))
            total += prediction * (opposite / whole).to(prediction.dtype)
        return total


def _neighbours(
    shape: torch.Size, size: tuple[int, int], top: int, bottom: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the four input pixels around each output pixel: index (P,), and offset in input pixels (P, 2)."""
    pixels = (torch.arange(top, bottom, device=device), torch.arange(size[1], device=device))
    positions = [(pixels[d] + 0.5) * (shape[d] / size[d]) - 0.5 for d in (0, 1)]
    for sides in product((0, 1), repeat=2):
        index = [
            (p.floor() + side).clamp(0, shape[d] - 1)
            for d, (p, side) in enumerate(zip(positions, sides, strict=True))
        ]
        # Local coordinates are doubled, as they span -1..+1 over the picture.
        y, x = (2 * (p - i) for p, i in zip(positions, index, strict=True))
        offset = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).view(-1, 2)
        yield (index[0][:, None] * shape[1] + index[1]).long().flatten(), offset


class ContinuousPixelMapping(nn.Module):
    """CPM of `scsnet.cpm` (Eq. 3), whose three planes are RGB here."""

    def __init__(self, channels: int = CHANNELS, hidden: int = 256) -> None:
        super().__init__()
        self.cpm = CPM(channels, hidden)

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Map features (B, C, H, W) to planes (B, 3, n, m), float32, in the blocks of `SCSNet.decode`."""
        height, width = features.shape[2:]
        device = features.device
        hidden = self.cpm.fold_first_layer(features)
        out = torch.empty(features.shape[0], 3, *size, device=device)
        for block in Window(0, 0, *size).blocks(*BLOCK):
            rows = build_axis(height, size[0], block.top, block.bottom, "centre", device)
            columns = build_axis(width, size[1], block.left, block.right, "centre", device)
            (top, bottom), (left, right) = rows.taps.span(), columns.taps.span()
            rows = rows._replace(taps=rows.taps.shifted(top))
            columns = columns._replace(taps=columns.taps.shifted(left))
            planes = self.cpm.map(hidden[:, top:bottom, left:right], rows, columns)
            place = (..., slice(block.top, block.bottom), slice(block.left, block.right))
            out[place] = planes.permute(0, 3, 1, 2)
        return out


class SubPixel(nn.Module):
    """3x3 convolution and pixel shuffle, twice for x4, and a 3x3 convolution to RGB: one magnification only."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for step in (2, 2) if factor == 4 else (factor,):
            wide = nn.Conv2d(channels, channels * step**2, 3, padding=1)
            layers += [wide, nn.PixelShuffle(step)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Map features (B, C, H, W) to planes (B, 3, n, m) of n = factor H, m = factor W."""
        out: Tensor = self.layers(features)
        assert out.shape[2:] == size, (out.shape, size)
        return out


FACTORS = {f"sub-pixel x{factor}": factor for factor in (2, 3, 4)}
"""Row -> its only magnification."""
CONTINUOUS: dict[str, Callable[[int, int], nn.Module]] = {
    "CPM": ContinuousPixelMapping,
    "Meta-SR": lambda channels, hidden: MetaSR(channels, hidden=hidden),
    "LIIF": LIIF,
}
"""Row -> its head, from channels and hidden features."""
ROWS = (*CONTINUOUS, *FACTORS)


def build_head(row: str, sizes: Sizes) -> nn.Module:
    """Return the untrained head of a row."""
    if row in FACTORS:
        return SubPixel(sizes.channels, FACTORS[row])
    return CONTINUOUS[row](sizes.channels, sizes.hidden)
