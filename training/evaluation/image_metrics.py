"""Metrics of single pictures and their aggregation over photos.

Pictures are sRGB uint8 arrays (H, W, 3). LAB, SSIM and CIEDE2000 are scikit-image's, so that they do not depend on
`scsnet.color`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

CELLS = 16  # cells along each side, over which coarse colours are averaged
HUES = {"reds": (345, 45), "skin": (45, 75), "greens": (95, 165), "blues": (225, 300)}
"""Range of the hue angle atan2(b, a), in degrees."""
MIN_CHROMA = 10.0  # CIE units; cells of less chroma have no reliable hue


def compute_psnr(error: np.ndarray, peak: float = 255) -> float:
    """Compute the PSNR in dB from the errors of all pixels; infinite if all are 0."""
    mean_square = float(np.mean(error**2))
    return math.inf if mean_square == 0 else 10 * math.log10(peak**2 / mean_square)


def convert_to_lab(rgb: np.ndarray) -> np.ndarray:
    """Convert sRGB (H, W, 3) to LAB, L* in 0..100."""
    from skimage.color import rgb2lab

    return rgb2lab(rgb)


def psnr(prediction: np.ndarray, target: np.ndarray) -> float:
    """Compute the PSNR in dB over all three sRGB planes, peak 255."""
    return compute_psnr(prediction.astype(np.float64) - target)


def ssim(prediction: np.ndarray, target: np.ndarray, channel_axis: int | None = 2) -> float:
    """Compute SSIM, mean over the sRGB planes: Gaussian window of 11 taps, sigma 1.5, population covariance."""
    from skimage.metrics import structural_similarity  # --help works without the extra

    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    options = window | {"data_range": 255, "channel_axis": channel_axis}
    return float(structural_similarity(target, prediction, **options))


def colorfulness(rgb: np.ndarray, absolute: bool = False) -> float:
    """Compute the colourfulness M3 of Hasler and Suesstrunk (2003).

    `absolute`: the variant of CT2 and DDColor, which takes |R - G| and |(R + G)/2 - B| before means and deviations.
    """
    red, green, blue = rgb.astype(np.float64).transpose(2, 0, 1)
    rg, yb = red - green, 0.5 * (red + green) - blue
    if absolute:
        rg, yb = np.abs(rg), np.abs(yb)
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def average_cells(lab: np.ndarray) -> np.ndarray:
    """Average ab over 16 x 16 cells of LAB (H, W, 3), which has at least 16 x 16 pixels; returns (16, 16, 2)."""
    rows, columns = (np.arange(CELLS) * n // CELLS for n in lab.shape[:2])
    ab = np.add.reduceat(np.add.reduceat(lab[..., 1:], rows, 0), columns, 1)
    heights, widths = np.diff([*rows, lab.shape[0]]), np.diff([*columns, lab.shape[1]])
    return ab / np.outer(heights, widths)[..., None]


class Target:
    """A target picture, with what every comparison with it needs."""

    def __init__(self, picture: np.ndarray) -> None:
        self.picture = picture
        self.lab = convert_to_lab(picture)
        self.m3 = colorfulness(picture)
        self.cells = average_cells(self.lab)


def compute_luma(picture: np.ndarray, border: int) -> np.ndarray:
    """Compute the luma Y of BT.601, 16..235, not rounded, without `border` pixels on each side."""
    luma: np.ndarray = 16 + picture.astype(np.float64) @ (np.array([65.481, 128.553, 24.966]) / 255)
    return luma[border : luma.shape[0] - border, border : luma.shape[1] - border]


def psnr_y(prediction: np.ndarray, target: np.ndarray, border: int) -> float:
    """Compute the PSNR of luma in dB without `border` pixels on each side, as super-resolution papers report it."""
    return compute_psnr(compute_luma(prediction, border) - compute_luma(target, border))


def ssim_y(prediction: np.ndarray, target: np.ndarray, border: int) -> float:
    """Compute SSIM of luma without `border` pixels on each side; window as in `ssim`."""
    return ssim(compute_luma(prediction, border), compute_luma(target, border), channel_axis=None)


def compare(prediction: np.ndarray, target: Target, border: int = 0) -> dict[str, float]:
    """Compute the metrics of a picture against a target of its size; `border` is that of `psnr_y`."""
    from skimage.color import deltaE_ciede2000

    lab = convert_to_lab(prediction)
    error = lab - target.lab
    m3 = colorfulness(prediction)
    return {
        "psnr": psnr(prediction, target.picture),
        "ssim": ssim(prediction, target.picture),
        "psnr_y": psnr_y(prediction, target.picture, border),
        "psnr_l": compute_psnr(error[..., 0], peak=100),
        "ab_error": float(np.abs(error[..., 1:]).mean()),
        "psnr_ab": compute_psnr(error[..., 1:]),
        "delta_e": float(deltaE_ciede2000(target.lab, lab).mean()),
        "chroma": float(np.hypot(lab[..., 1], lab[..., 2]).mean()),
        "m3": m3,
        "m3_abs": colorfulness(prediction, absolute=True),
        "delta_m3": abs(m3 - target.m3),
        **_count_cells(average_cells(lab), target.cells),
    }


def _convert_to_polar(ab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the hue in degrees and the chroma of ab (..., 2)."""
    return np.degrees(np.arctan2(ab[..., 1], ab[..., 0])) % 360, np.hypot(ab[..., 0], ab[..., 1])


def _count_cells(prediction: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Return the sums that `aggregate` needs, from the coarse ab (16, 16, 2) of both pictures."""
    sums: dict[str, float] = {}
    for i, name in enumerate("ab"):
        sums[f"_error_{name}"] = float(((prediction - target)[..., i] ** 2).sum())
        sums[f"_energy_{name}"] = float((target[..., i] ** 2).sum())
    (hue, chroma), (predicted_hue, predicted_chroma) = map(_convert_to_polar, (target, prediction))
    hits = np.abs((predicted_hue - hue + 180) % 360 - 180) <= 30
    hits &= predicted_chroma >= MIN_CHROMA / 2
    for name, (low, high) in HUES.items():
        cells = (chroma >= MIN_CHROMA) & ((hue - low) % 360 < (high - low) % 360)
        sums[f"_cells_{name}"] = float(cells.sum())
        sums[f"_hits_{name}"] = float((cells & hits).sum())
    return sums


def aggregate(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the means of all metrics over photos, and coarse metrics from sums over all cells.

    "explained", "explained_a", "explained_b": 1 - (squared ab error) / (squared ab error of a gray picture), over 16 x 16
    cells of every photo. "hits_greens" etc.: fraction of the target's cells of that hue (chroma of at least 10) for which
    the prediction's hue is within 30 degrees and its chroma at least 5; missing where no photo has such cells.
    """
    totals = {name: sum(row[name] for row in rows) for name in rows[0]}
    result = {name: value / len(rows) for name, value in totals.items() if name[0] != "_"}
    for label, planes in (("explained", "ab"), ("explained_a", "a"), ("explained_b", "b")):
        energy = sum(totals[f"_energy_{plane}"] for plane in planes)
        if energy:
            result[label] = 1 - sum(totals[f"_error_{plane}"] for plane in planes) / energy
    for name in HUES:
        if totals[f"_cells_{name}"]:
            result[f"hits_{name}"] = totals[f"_hits_{name}"] / totals[f"_cells_{name}"]
    return result


def moves_towards(automatic: np.ndarray, referenced: np.ndarray, reference: np.ndarray) -> bool:
    """Return whether the mean ab with a reference is nearer to the reference's than without it."""
    pictures = reference, automatic, referenced
    target, before, after = (convert_to_lab(p)[..., 1:].mean((0, 1)) for p in pictures)
    return bool(np.linalg.norm(after - target) < np.linalg.norm(before - target))


def measure_color_shift(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Return the mean distance in ab between two pictures, and the mean chroma of the first, in CIE units."""
    first, second = (convert_to_lab(picture)[..., 1:] for picture in (before, after))
    distance, chroma = (np.linalg.norm(ab, axis=2).mean() for ab in (second - first, first))
    return float(distance), float(chroma)


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the Frechet distance (FID) between features (N, D) and (M, D); biased upwards unless N is far above D."""
    mean = first.mean(0) - second.mean(0)
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    eigenvalues = np.linalg.eigvals(a @ b)
    root = np.sqrt(np.clip(eigenvalues.real, 0, None)).sum()
    return float(mean @ mean + np.trace(a) + np.trace(b) - 2 * root)


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the kernel distance (KID) between features (N, D) and (M, D): unbiased squared MMD, kernel (x.y / D + 1)^3."""
    n, m, d = len(first), len(second), first.shape[1]
    within = [((x @ x.T / d + 1) ** 3, len(x)) for x in (first, second)]
    same = sum((k.sum() - np.trace(k)) / (count * (count - 1)) for k, count in within)
    return float(same - 2 * ((first @ second.T / d + 1) ** 3).sum() / (n * m))
