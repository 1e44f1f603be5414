"""Colours that stay: each frame's are averaged with those that the same things had before.

The network sees every frame anew, so that the colours of a panned sky drift. Here the motion of a frame is estimated from
luminance alone (phase correlation for the whole of it, then Lucas and Kanade 1981 on a pyramid), the colours of the frames
before are carried along, and where light and dark agree the result is the mean of all that the same place had. A cut,
found by luminance too, starts anew.

LAB planes (B, 3, H, W) in CIE units; B are consecutive frames. Motion (1, 2, h, w) is where a pixel was in the frame before, in
pixels (x, y) away from where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 128  # motion is estimated on a copy of about SIDE² pixels
MEMORY = 32.0  # frames: the mean does not weigh what it carries more than so many
FIRST = 3.0  # frames that colours seen once stand for: with 1 the first frames of a shot would move most
LEVELS = 3  # of the pyramid, halved each time
STEPS = 2  # of Gauss and Newton at each level
PATCH = 7  # side of what moves together, in pixels of the copy
STIFFNESS = 4.0  # added to the squared gradients of L*: what is even moves with the rest
FLICKER = 6.0  # L*: largest change of the whole frame that is no change of the scene
CHANGE = (4.0, 10.0)  # L*: below, it is the same thing; above, another
BROAD = 2.0  # how much more broad differences count: dissolves are slow
BINS = 16  # of the histograms of L*
CUT_HISTOGRAM = 0.35  # share of the pixels that have to change their bin in a cut
CUT_AGREEMENT = 0.4  # share of a frame below which the rest of it is worth nothing


def warp(planes: Tensor, motion: Tensor) -> Tensor:
    """Return planes (1, C, H, W) moved to where things are now, bilinear; border pixels are repeated."""
    return F.grid_sample(
        planes, _locate(motion), mode="bilinear", padding_mode="border", align_corners=False
    )


def _locate(motion: Tensor) -> Tensor:
    """Return where each pixel was (1, H, W, 2), as `grid_sample` takes it: -1..1 from border to border."""
    height, width = motion.shape[2:]
    still = torch.eye(2, 3, device=motion.device)[None]
    grid = F.affine_grid(still, [1, 1, height, width], align_corners=False)
    return grid + motion.permute(0, 2, 3, 1) * motion.new_tensor([2 / width, 2 / height])


def estimate_shift(before: Tensor, now: Tensor) -> tuple[int, int]:
    """Return the motion (x, y) that all of two planes (1, 1, h, w) share, whole pixels, by phase correlation."""
    height, width = now.shape[2:]
    window = (
        torch.hann_window(height, False, device=now.device)[:, None]
        * torch.hann_window(width, False, device=now.device)
    )  # fmt: skip
    first, second = (torch.fft.rfft2((x - x.mean()) * window) for x in (before, now))
    product = first * second.conj()
    peaks = torch.fft.irfft2(product / product.abs().clamp_min(1e-6), s=(height, width))
    peaks = F.avg_pool2d(F.pad(peaks, (1, 1, 1, 1), mode="circular"), 3, 1)
    y, x = divmod(int(peaks.argmax()), width)
    return (x - width if 2 * x > width else x), (y - height if 2 * y > height else y)


def estimate_motion(before: Tensor, now: Tensor) -> Tensor:
    """Return the motion (1, 2, h, w) between two planes of L* (1, 1, h, w)."""
    height, width = now.shape[2:]
    candidates = []
    for shift in {(0, 0), estimate_shift(before, now)}:
        motion = now.new_tensor(shift).view(1, 2, 1, 1).expand(1, 2, height, width)
        kept = _lies_inside(motion)
        error = ((warp(before, motion) - now).abs() * kept).sum() / kept.sum().clamp_min(
            now.numel() / 4
        )
        candidates.append((float(error), shift, motion))
    motion = min(candidates, key=lambda candidate: candidate[:2])[2]
    for level in reversed(range(LEVELS)):
        size = (-(-height // 2**level), -(-width // 2**level))
        first, second = (F.interpolate(x, size, mode="area") for x in (before, now))
        scale = motion.new_tensor([size[1] / width, size[0] / height]).view(1, 2, 1, 1)
        part = F.interpolate(motion, size, mode="bilinear") * scale
        for _ in range(STEPS):
            part = part + _step(warp(first, part), second)
        motion = F.interpolate(part, (height, width), mode="bilinear") / scale
    return motion


def _step(moved: Tensor, now: Tensor) -> Tensor:
    """Return the motion that is left between two planes, at most 1.5 pixels: least squares over each patch."""
    padded = F.pad(moved, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    rest = now - moved
    rest = rest - rest.median()  # films flicker
    products = [across * across, across * down, down * down, across * rest, down * rest]
    xx, xy, yy, xt, yt = _average(torch.cat(products, dim=1), PATCH).split(1, dim=1)
    xx, yy = xx + STIFFNESS, yy + STIFFNESS
    steps = torch.cat([yy * xt - xy * yt, xx * yt - xy * xt], dim=1)
    return (steps / (xx * yy - xy * xy)).clamp(-1.5, 1.5)


def _average(planes: Tensor, side: int) -> Tensor:
    return F.avg_pool2d(planes, side, 1, side // 2, count_include_pad=False)


def _lies_inside(motion: Tensor) -> Tensor:
    """Return 1 where a pixel was in the frame before, else 0: (1, 1, H, W)."""
    return (_locate(motion).abs() <= 1).all(-1)[:, None].to(motion.dtype)


def _count_grays(lightness: Tensor) -> Tensor:
    return torch.histc(lightness.clamp(0, 100), BINS, 0, 100) / lightness.numel()


@dataclass
class _Carried:
    """What is known of the frame before: its colours, and a small copy of the rest."""

    colors: Tensor  # a and b (1, 2, H, W)
    lightness: Tensor  # L* (1, 1, h, w)
    mean: Tensor  # L* averaged as the colours are
    weight: Tensor  # number of frames in the mean


class SteadyColors:
    """Steadies the colours of a film, frame after frame; keeps the last frame alone.

    >>> steady = SteadyColors()
    >>> labs = [steady(decode_lab(net, encode_picture(net, frame), size)) for frame in frames]
    """

    def __init__(self) -> None:
        self._before: _Carried | None = None

    @torch.inference_mode()
    def __call__(self, lab: Tensor) -> Tensor:
        """Return LAB (B, 3, H, W), CIE units, of consecutive frames with steady a and b; L* stays.

        Frames of another size than the last one start anew. Raises ValueError for other shapes.
        """
        if lab.ndim != 4 or lab.shape[1] != 3 or 0 in lab.shape:
            raise ValueError(f"expected LAB (B, 3, H, W), got shape {tuple(lab.shape)}")
        colors = [self._steady(frame[:, :1], frame[:, 1:]) for frame in lab.float().split(1)]
        return torch.cat([lab[:, :1].float(), torch.cat(colors)], dim=1)

    def _steady(self, lightness: Tensor, colors: Tensor) -> Tensor:
        height, width = lightness.shape[2:]
        scale = min(1.0, SIDE / sqrt(height * width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        small = F.interpolate(lightness, size, mode="area")
        before = self._before
        weight: Tensor | None = None
        if before is not None and before.colors.shape == colors.shape:
            motion = estimate_motion(before.lightness, small)
            weight, mean = self._compare(before, small, motion)
        if before is None or weight is None:
            self._before = _Carried(colors, small, small, torch.full_like(small, FIRST))
            return colors
        stretch = motion.new_tensor([width / size[1], height / size[0]]).view(1, 2, 1, 1)
        large = F.interpolate(motion, (height, width), mode="bilinear") * stretch
        share = weight / (weight + 1)
        carried = warp(before.colors, large)
        colors = torch.lerp(colors, carried, F.interpolate(share, (height, width), mode="bilinear"))
        mean = torch.lerp(small, mean, share)
        self._before = _Carried(colors, small, mean, (weight + 1).clamp(FIRST, MEMORY))
        return colors

    def _compare(
        self, before: _Carried, small: Tensor, motion: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """Return how many frames the colours carried to each place stand for, None after a cut, and the mean L* there."""
        planes = torch.cat([before.lightness, before.mean, before.weight], dim=1)
        last, mean, weight = warp(planes, motion).split(1, dim=1)
        last, mean = (
            planes - (planes - small).median().clamp(-FLICKER, FLICKER) for planes in (last, mean)
        )
        # Of the last frame every detail, of the mean, which dissolves and fades leave behind, the broad light and dark.
        differences = torch.maximum(
            _average((last - small).abs(), 3), BROAD * _average(mean - small, PATCH).abs()
        )
        low, high = CHANGE
        inside = _lies_inside(motion)
        agreement = ((high - differences) / (high - low)).clamp(0, 1) * inside
        # Where the rest of a frame changes, as in a dissolve, places that look the same may have changed too.
        agreeing = agreement.sum() / inside.sum().clamp_min(1)
        flicker = (before.lightness - small).median().clamp(-FLICKER, FLICKER)
        grays = _count_grays(before.lightness - flicker)
        moved = (grays - _count_grays(small)).abs().sum() / 2
        if moved > CUT_HISTOGRAM or agreement.mean() < CUT_AGREEMENT:
            return None, mean
        return weight * agreement * agreeing, mean
