"""Figures of merit (architecture.md, section 6): pictures in, numbers out. No training state.

Pictures are sRGB uint8 arrays (H, W, 3) as a file would hold them. LAB, SSIM and CIEDE2000 are
scikit-image's, so that they do not depend on our own colour code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity


def decibels(mean_square: float, peak: float) -> float:
    """Mean squared error -> PSNR; infinite where there is no error."""
    return math.inf if mean_square == 0 else 10 * math.log10(peak**2 / mean_square)


def psnr(result: np.ndarray, truth: np.ndarray) -> float:
    """Of all three sRGB planes, range 255."""
    return decibels(float(np.mean((result.astype(np.float64) - truth) ** 2)), 255)


def ssim(result: np.ndarray, truth: np.ndarray) -> float:
    """Gaussian window of 11 taps, sigma 1.5, population covariance; mean over the sRGB planes."""
    return float(
        structural_similarity(
            truth,
            result,
            data_range=255,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def colorfulness(rgb: np.ndarray, absolute: bool = False) -> float:
    """Hasler and Suesstrunk's M3 of the paper of 2003; `absolute` is the variant of CT2 and DDColor.

    The variant takes |R - G| and |(R + G)/2 - B| before means and deviations, which the paper does not.
    """
    red, green, blue = rgb.astype(np.float64).transpose(2, 0, 1)
    rg, yb = red - green, 0.5 * (red + green) - blue
    if absolute:
        rg, yb = np.abs(rg), np.abs(yb)
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


class Truth:
    """A picture that others are compared with; what every comparison needs is computed once."""

    def __init__(self, picture: np.ndarray) -> None:
        self.picture = picture
        self.lab = rgb2lab(picture)  # (H, W, 3), L* 0..100
        self.m3 = colorfulness(picture)


def figures(result: np.ndarray, truth: Truth) -> dict[str, float]:
    """Every figure of one picture against the truth of the same size."""
    if result.shape != truth.picture.shape:
        raise ValueError(
            f"expected pictures of one size, got {result.shape} and {truth.picture.shape}"
        )
    lab = rgb2lab(result)
    difference = lab - truth.lab
    m3 = colorfulness(result)
    return {
        "psnr": psnr(result, truth.picture),
        "ssim": ssim(result, truth.picture),
        "psnr_l": decibels(float(np.mean(difference[..., 0] ** 2)), 100),
        "ab_error": float(np.abs(difference[..., 1:]).mean()),
        "psnr_ab": decibels(float(np.mean(difference[..., 1:] ** 2)), 255),
        "delta_e": float(deltaE_ciede2000(truth.lab, lab).mean()),
        "chroma": float(np.hypot(lab[..., 1], lab[..., 2]).mean()),
        "m3": m3,
        "m3_abs": colorfulness(result, absolute=True),
        "delta_m3": abs(m3 - truth.m3),
    }


def moves_towards(automatic: np.ndarray, referenced: np.ndarray, reference: np.ndarray) -> bool:
    """Whether a reference drew a picture's mean ab nearer to its own than it is without it."""
    target, before, after = (
        rgb2lab(p)[..., 1:].mean((0, 1)) for p in (reference, automatic, referenced)
    )
    return bool(np.linalg.norm(after - target) < np.linalg.norm(before - target))


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """FID between features (N, D) and (M, D); biased upwards while N is not far above D."""
    mean = first.mean(0) - second.mean(0)
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    eigenvalues = np.linalg.eigvals(a @ b)
    root = np.sqrt(np.clip(eigenvalues.real, 0, None)).sum()
    return float(mean @ mean + np.trace(a) + np.trace(b) - 2 * root)


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """KID: unbiased squared MMD with the kernel (x.y / D + 1)^3, between (N, D) and (M, D)."""
    n, m, d = len(first), len(second), first.shape[1]
    within = [((x @ x.T / d + 1) ** 3, len(x)) for x in (first, second)]
    same = sum((k.sum() - np.trace(k)) / (count * (count - 1)) for k, count in within)
    return float(same - 2 * ((first @ second.T / d + 1) ** 3).sum() / (n * m))


def mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over pictures."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
