"""Evaluate and plot Table 6, PSNR and SSIM of luma over magnifications; measure Table 7, size and speed of the heads."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from scsnet.atomic_write import open_atomic
from training.config.train_config import Precision
from training.config.upscaling import SIZES
from training.data.photos import Entry, read_photos
from training.evaluation.image_metrics import psnr_y, ssim_y
from training.evaluation.protocol import to_tensor, to_uint8
from training.models.rdn import Upscaler
from training.models.upscaling_heads import CONTINUOUS, FACTORS, build_head
from training.text import format_table

MAGNIFICATIONS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0)
PRINTED = (2.0, 3.0, 4.0)
"""Magnifications of Table 6."""
METHODS = ("bicubic", "sub-pixel", *reversed(CONTINUOUS))
PAPER_QUALITY: dict[str, dict[str, tuple[str, ...]]] = {
    "bicubic": {
        "set14": ("30.240 / 0.8688", "27.550 / 0.7742", "26.000 / 0.7227"),
        "b100": ("29.560 / 0.8431", "27.210 / 0.7385", "25.960 / 0.6675"),
        "div2k": ("31.350 / 0.9076", "28.490 / 0.8339", "26.920 / 0.7774"),
    },
    "sub-pixel": {
        "set14": ("34.010 / 0.9212", "30.570 / 0.8468", "28.810 / 0.7871"),
        "b100": ("32.340 / 0.9017", "29.260 / 0.8093", "27.720 / 0.7419"),
        "div2k": ("35.170 / 0.9483", "31.390 / 0.8931", "29.340 / 0.8446"),
    },
    "Meta-SR": {
        "set14": ("34.040 / 0.9213", "30.550 / 0.8466", "28.840 / 0.7872"),
        "b100": ("32.350 / 0.9019", "29.300 / 0.8096", "27.750 / 0.7423"),
        "div2k": ("35.180 / 0.9484", "31.420 / 0.8935", "29.360 / 0.8448"),
    },
    "CPM": {
        "set14": ("34.000 / 0.9207", "30.610 / 0.8472", "28.910 / 0.7880"),
        "b100": ("32.350 / 0.9020", "29.310 / 0.8101", "27.770 / 0.7423"),
        "div2k": ("35.180 / 0.9486", "31.450 / 0.8930", "29.380 / 0.8428"),
    },
}
"""Method -> set -> PSNR and SSIM at x2, x3 and x4, as printed in Table 6."""
PAPER_SPEED = {"CPM": ("0.35", "178"), "Meta-SR": ("0.45", "92")}
"""Head -> parameters in millions and frames per second, as printed in Table 7."""
FEATURES, FRAME = 128, 512
"""Sides of features and result in Table 7: those of Sec. 4.1; the paper does not say."""
RUNS = 5
Scores = dict[str, dict[float, tuple[float, float]]]
"""Method -> magnification -> mean PSNR and SSIM."""
Networks = Mapping[str, Upscaler]
"""Row -> network."""


def count_parameters(module: nn.Module) -> int:
    """Count the parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def make_pair(photo: np.ndarray, magnification: float) -> tuple[np.ndarray, np.ndarray]:
    """Return input and truth of a photo (H, W, 3), cropped at the bottom and right by less than a pixel of the input.

    The input is the truth resized by Pillow's antialiased bicubic, which has the kernel of MATLAB's imresize.
    """
    height, width = (max(1, int(n / magnification)) for n in photo.shape[:2])
    truth = photo[: round(height * magnification), : round(width * magnification)]
    return resize(truth, (height, width)), truth


def resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 (h, w, 3) to (H, W, 3), bicubic."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC))


@torch.inference_mode()
def upscale(
    networks: Networks, method: str, low: np.ndarray, size: tuple[int, int], magnification: float
) -> np.ndarray:
    """Enlarge uint8 (h, w, 3) to (H, W, 3) with a method.

    "sub-pixel" is the network of the nearest magnification, or of the larger one of two; its result is resized, bicubic,
    if it has another size.
    """
    if method == "bicubic":
        return resize(low, size)
    row, own = method, size
    if row not in networks:
        row = min(FACTORS, key=lambda row: (abs(FACTORS[row] - magnification), -FACTORS[row]))
        own = (FACTORS[row] * low.shape[0], FACTORS[row] * low.shape[1])
    planes = to_tensor(low).to(next(networks[row].parameters()).device)
    result = to_uint8(networks[row](planes, own))
    return result if own == size else resize(result, size)


def score_photos(
    networks: Networks, entries: Sequence[Entry], magnifications: Sequence[float]
) -> Scores:
    """Compute the mean PSNR and SSIM of luma, without a border as wide as the magnification, of all methods.

    Unreadable photos are printed and left out. Raises ValueError if none can be read.
    """
    pairs: dict[tuple[str, float], list[tuple[float, float]]] = {}
    skipped: list[str] = []
    for _, photo in read_photos(tqdm(entries, "evaluation", disable=None), skipped):
        for magnification in magnifications:
            low, truth = make_pair(photo, magnification)
            size, border = (truth.shape[0], truth.shape[1]), math.ceil(magnification)
            for method in METHODS:
                result = upscale(networks, method, low, size, magnification)
                pair = psnr_y(result, truth, border), ssim_y(result, truth, border)
                pairs.setdefault((method, magnification), []).append(pair)
    for reason in skipped:
        print(f"left out: {reason}")
    if not pairs:
        raise ValueError("expected photos to evaluate on, none can be read")
    scores: Scores = {}
    for (method, magnification), values in pairs.items():
        psnr, ssim = (sum(figures) / len(values) for figures in zip(*values, strict=True))
        scores.setdefault(method, {})[magnification] = psnr, ssim
    return scores


def format_quality(sets: Mapping[str, Scores], networks: Networks) -> list[str]:
    """Return Table 6 and the PSNR over all magnifications as lines of Markdown, with the paper's rows for its sets."""
    columns = [f"{name} x{m:g}" for name in sets for m in PRINTED]
    rows: list[list[object]] = []
    for method in METHODS:
        heads = [net.head for row, net in networks.items() if row.startswith(method)]
        count = sum(map(count_parameters, heads))
        pairs = [scores[method][m] for scores in sets.values() for m in PRINTED]
        cells = [f"{psnr:.3f} / {ssim:.4f}" for psnr, ssim in pairs]
        rows.append([method, f"{count:,}" if count else "", *cells])
    if any(name.lower() in PAPER_QUALITY["CPM"] for name in sets):
        for method, printed in PAPER_QUALITY.items():
            cells = [cell for name in sets for cell in printed.get(name.lower(), ("", "", ""))]
            rows.append([f"paper: {method}", "", *cells])
    lines = format_table(["", "parameters of the head", *columns], rows)
    for name, scores in sets.items():
        lines += ["", f"PSNR on {name} over the magnification:", ""]
        header = ["", *(f"x{m:g}" for m in scores["bicubic"])]
        figures = [[m, *(f"{psnr:.2f}" for psnr, _ in scores[m].values())] for m in METHODS]
        lines += format_table(header, figures)
    return lines


def plot_quality(sets: Mapping[str, Scores], trained: tuple[float, float], path: Path) -> None:
    """Plot the PSNR over the magnification to a PNG, and how far it is above bicubic's; a column for each set.

    `trained`, the range of the continuous heads, is shaded; dots are the magnifications of the sub-pixel heads.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(sets), 6.5), layout="constrained")
    panels = figure.subplots(2, len(sets), sharex=True, squeeze=False)
    for (upper, lower), (name, scores) in zip(panels.T, sets.items(), strict=True):
        bicubic = {m: psnr for m, (psnr, _) in scores["bicubic"].items()}
        for axes in (upper, lower):
            axes.axvspan(*trained, color="0.93", label="trained (continuous heads)")
            axes.grid(color="0.85", linewidth=0.5)
        for method in METHODS:
            points = {m: psnr for m, (psnr, _) in scores[method].items() if math.isfinite(psnr)}
            options: dict[str, Any] = {"linestyle": "--" if method == "bicubic" else "-"}
            options["label"] = "sub-pixel, else + bicubic" if method == "sub-pixel" else method
            above = {
                m: psnr - bicubic[m] for m, psnr in points.items() if math.isfinite(bicubic[m])
            }
            for axes, values in ((upper, points), (lower, above)):
                x = [*values]
                if method == "sub-pixel":
                    own = [x.index(factor) for factor in FACTORS.values() if factor in x]
                    options |= {"marker": "o", "markevery": own}
                axes.plot(x, [*values.values()], linewidth=1.3, **options)
        upper.set(title=name, ylabel="PSNR of luma in dB")
        lower.set(xlabel="magnification", ylabel="dB above bicubic")
        upper.legend(fontsize=8)
    with open_atomic(path) as file:
        figure.savefig(file, format="png")


@torch.inference_mode()
def time_heads(device: torch.device, precision: Precision) -> dict[str, tuple[int, float]]:
    """Measure parameters and median seconds per frame of each head: paper's size, batch 1, untrained, in alternation."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    sizes = SIZES["paper"]
    nearest = next(row for row, factor in FACTORS.items() if factor * FEATURES == FRAME)
    heads = {row: build_head(row, sizes).to(device, dtype) for row in (*CONTINUOUS, nearest)}
    planes = torch.randn(1, sizes.channels, FEATURES, FEATURES).to(device, dtype)
    seconds: dict[str, list[float]] = {row: [] for row in heads}
    for _ in range(1 + RUNS):  # the first is a warm-up
        for row, head in heads.items():
            began = time.perf_counter()
            head(planes, (FRAME, FRAME))
            if planes.is_cuda:
                torch.cuda.synchronize()
            seconds[row].append(time.perf_counter() - began)
    return {row: (count_parameters(heads[row]), median(seconds[row][1:])) for row in heads}


def format_speed(heads: Mapping[str, tuple[int, float]]) -> list[str]:
    """Return Table 7 as lines of Markdown."""
    rows = []
    for row, (count, seconds) in heads.items():
        rows.append([row, f"{count:,}", f"{1 / seconds:.3g}", *PAPER_SPEED.get(row, ("", ""))])
    return format_table(["head", "parameters", "FPS", "paper: parameters (M)", "paper: FPS"], rows)
