"""Colours that stay: each frame's are averaged with those that the same things had before.

The network sees every frame anew, so that the colours of a panned sky drift. Here the motion of a frame is estimated from
luminance alone (phase correlation, an affine motion of the camera, then Lucas and Kanade 1981 for what moves by itself), the
colours of the frames before are carried along, and where light and dark agree the result is the mean of all that the same
place had. A cut, found by luminance too, starts anew.

LAB planes (B, 3, H, W) in CIE units; B are consecutive frames. Motion (1, 2, h, w) is where a pixel was in the frame before, in
pixels (x, y) away from where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 128  # motion is estimated on a copy of about SIDE² pixels
MEMORY = 32.0  # frames: the mean does not weigh what it carries more than so many
FIRST = 3.0  # frames that colours seen once stand for: with 1 the first frames of a shot would move most
LEVELS = 3  # of the pyramid, halved each time
SHIFTS = 4  # of the camera that are tried
STEPS = 3  # of Gauss and Newton at each level
BETTER, LEAST = 0.8, 0.5  # factor, and L*: by both, patches that move by themselves differ less
PATCH = 7  # side of what moves together, in pixels of the copy
STIFFNESS = 4.0  # added to the squared gradients of L*: what is even moves with the rest
FLICKER = 6.0  # L*: largest change of the whole frame that is no change of the scene
CHANGE = (4.0, 10.0)  # L*: below, it is the same thing; above, another
BROAD = 2.0  # how much more broad differences count: dissolves are slow
BINS = 16  # of the histograms of L*
CUT_HISTOGRAM = 0.35  # share of the pixels that have to change their bin in a cut
CUT_AGREEMENT = 0.4  # share of a frame that stays, below which it is a cut; twice if bins change


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


def estimate_shifts(before: Tensor, now: Tensor) -> list[tuple[int, int]]:
    """Return the likeliest motions (x, y) of two planes (1, 1, h, w), whole pixels, by phase correlation.

    The first may be that of something large in the middle, not that of the camera.
    """
    height, width = now.shape[2:]
    window = (
        torch.hann_window(height, False, device=now.device)[:, None]
        * torch.hann_window(width, False, device=now.device)
    )  # fmt: skip
    first, second = (torch.fft.rfft2((x - x.mean()) * window) for x in (before, now))
    product = first * second.conj()
    peaks = torch.fft.irfft2(product / product.abs().clamp_min(1e-6), s=(height, width))
    peaks = F.avg_pool2d(F.pad(peaks, (1, 1, 1, 1), mode="circular"), 3, 1)
    highest = F.max_pool2d(peaks, 5, 1, 2)
    heights = torch.where(peaks == highest, peaks, 0).flatten()
    shifts = []
    for place in heights.topk(min(SHIFTS, len(heights))).indices.tolist():
        y, x = divmod(place, width)
        shifts.append((x - width if 2 * x > width else x, y - height if 2 * y > height else y))
    return shifts


def estimate_motion(before: Tensor, now: Tensor) -> Tensor:
    """Return the motion (1, 2, h, w) between two planes of L* (1, 1, h, w): the camera's, or what fits much better."""
    height, width = now.shape[2:]
    candidates = []
    for shift in {(0, 0), *estimate_shifts(before, now)}:
        motion = now.new_tensor(shift).view(1, 2, 1, 1).expand(1, 2, height, width)
        kept = _lies_inside(motion)
        rest = _compute_rest(warp(before, motion), now).abs().clamp_max(CHANGE[1])
        error = (rest * kept).sum() / kept.sum().clamp_min(now.numel() / 4)
        candidates.append((float(error), shift, motion))
    motion = min(candidates, key=lambda candidate: candidate[:2])[2]
    camera = _refine(before, now, motion, _step_of_camera)
    motion = _refine(before, now, camera, _step_of_patches)
    of_camera, of_patches = (
        _average(_compute_rest(warp(before, x), now).abs(), PATCH) for x in (camera, motion)
    )
    return torch.where(of_patches < BETTER * of_camera - LEAST, motion, camera)


def _refine(
    before: Tensor,
    now: Tensor,
    motion: Tensor,
    step: Callable[[Tensor, Tensor, Tensor, int], Tensor],
) -> Tensor:
    """Return the motion after steps of Gauss and Newton on each level of a pyramid, the coarsest first."""
    height, width = now.shape[2:]
    for level in reversed(range(LEVELS)):
        size = (-(-height // 2**level), -(-width // 2**level))
        first, second = (F.interpolate(x, size, mode="area") for x in (before, now))
        scale = motion.new_tensor([size[1] / width, size[0] / height]).view(1, 2, 1, 1)
        part = F.interpolate(motion, size, mode="bilinear") * scale
        for _ in range(STEPS):
            part = part + step(warp(first, part), second, _lies_inside(part), level)
        motion = F.interpolate(part, (height, width), mode="bilinear") / scale
    return motion


def _compute_rest(moved: Tensor, now: Tensor) -> Tensor:
    """Return what differs between two planes, but for a change of the whole: films flicker."""
    rest = now - moved
    return rest - rest.median()


def _step_of_camera(moved: Tensor, now: Tensor, inside: Tensor, level: int) -> Tensor:
    """Return the motion that is left of most of the frame: affine, at the coarsest level a shift; robust least squares."""
    height, width = now.shape[2:]
    rows, columns = (torch.linspace(-1, 1, n, device=now.device) for n in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y][: 1 if level == LEVELS - 1 else 3])
    across, down = _differentiate(moved)
    rest = _compute_rest(moved, now)
    spread = 1.5 * rest.abs().median() + 0.5
    weights = inside / (1 + (rest / spread) ** 2) ** 2  # Geman and McClure
    light = torch.stack([torch.ones_like(x), moved[0, 0] / 100])  # what flicker adds
    slopes = torch.cat([across[0] * basis, down[0] * basis, light]).flatten(1)
    weighted = slopes * weights.flatten()
    normal = weighted @ slopes.T
    damping = 1e-4 * normal.diagonal().clamp_min(1.0)
    # Small, and not every device solves equations.
    equations = ((normal + damping.diag()).cpu(), (weighted @ rest.flatten()).cpu())
    found = torch.linalg.solve(*equations).to(now.device)
    return torch.einsum("cn,nhw->chw", found[:-2].view(2, -1), basis)[None]


def _differentiate(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slopes (across, down) of a plane."""
    padded = F.pad(plane, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    return across, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2


def _step_of_patches(moved: Tensor, now: Tensor, inside: Tensor, level: int) -> Tensor:
    """Return the motion that is left, at most 1.5 pixels: least squares over each patch."""
    across, down = _differentiate(moved)
    rest = _compute_rest(moved, now)
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


def _shrink(lightness: Tensor) -> Tensor:
    """Return the small copy (1, 1, h, w) of L* (1, 1, H, W) on which motion is estimated."""
    height, width = lightness.shape[2:]
    scale = min(1.0, SIDE / sqrt(height * width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return F.interpolate(lightness, size, mode="area")


def _remove_flicker(before: Tensor, now: Tensor) -> Tensor:
    """Return L* of the frame before as light as the present one on the whole, but for changes of the scene."""
    return before - (before - now).median().clamp(-FLICKER, FLICKER)


def _compare_details(moved: Tensor, now: Tensor) -> Tensor:
    """Return the difference of L* around each pixel, without grain."""
    return _average(_average(moved - now, 3).abs(), 3)


def _find_agreement(differences: Tensor) -> Tensor:
    """Return 1 where L* differs so little that it is the same thing, down to 0 where it is another."""
    low, high = CHANGE
    return ((high - differences) / (high - low)).clamp(0, 1)


def _measure_moved_grays(before: Tensor, now: Tensor) -> Tensor:
    """Return the share of the pixels that change their bin in the histograms of L*."""
    shares = [
        torch.histc(x.clamp(0, 100), BINS, 0, 100) / x.numel()
        for x in (_remove_flicker(before, now), now)
    ]
    return (shares[0] - shares[1]).abs().sum() / 2


class CutFinder:
    """Finds the plain cuts of a film in the luminance of its frames alone, one after the other."""

    def __init__(self) -> None:
        self._before: Tensor | None = None

    @torch.inference_mode()
    def add(self, lightness: Tensor) -> bool:
        """Take L* (1, 1, H, W) of the next frame; return whether a shot begins with it, as with the first."""
        now = _shrink(lightness)
        before, self._before = self._before, now
        if before is None:
            return True
        if _measure_moved_grays(before, now) <= CUT_HISTOGRAM:
            return False
        motion = estimate_motion(before, now)
        moved = _remove_flicker(warp(before, motion), now)
        agreement = _find_agreement(_compare_details(moved, now)) * _lies_inside(motion)
        return bool(agreement.mean() < 2 * CUT_AGREEMENT)


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

    def forget(self) -> None:
        """Treat the next frame as the first one of a film."""
        self._before = None

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
        small = _shrink(lightness)
        before = self._before
        weight: Tensor | None = None
        if before is not None and before.colors.shape == colors.shape:
            motion = estimate_motion(before.lightness, small)
            weight, mean = self._compare(before, small, motion)
        if before is None or weight is None:
            self._before = _Carried(colors, small, small, torch.full_like(small, FIRST))
            return colors
        stretch = motion.new_tensor([width / small.shape[3], height / small.shape[2]])
        large = F.interpolate(motion, (height, width), mode="bilinear") * stretch.view(1, 2, 1, 1)
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
        last, mean = _remove_flicker(last, small), _remove_flicker(mean, small)
        # Of the last frame details but no grain, of the mean, which dissolves and fades leave behind, the broad light and dark.
        differences = torch.maximum(
            _compare_details(last, small), BROAD * _average(mean - small, PATCH).abs()
        )
        inside = _lies_inside(motion)
        agreement = _find_agreement(differences) * inside
        # Where the rest of a frame changes, as in a dissolve, places that look the same may have changed too.
        agreeing = agreement.sum() / inside.sum().clamp_min(1)
        # Flicker and grain move pixels to other bins, too, but what is seen stays.
        moved = _measure_moved_grays(before.lightness, small)
        other = CUT_AGREEMENT if moved <= CUT_HISTOGRAM else 2 * CUT_AGREEMENT
        if agreement.mean() < other:
            return None, mean
        return weight * agreement * agreeing, mean
