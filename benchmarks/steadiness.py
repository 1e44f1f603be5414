"""How steady the colours of a film are: windows that slide over photos, so that all motion is known.

    python -m benchmarks.steadiness PHOTO... [--width 512] [--frames 24]

Each photo gives a pan, by 1/128 of the width per frame, and a zoom by 20 % in all. Change: mean |difference| of a and b of the same
things in consecutive frames, frame by frame, steadied, and in the photo itself. PSNR of a and b with a peak of 110, mean of all frames.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.pictures import best
from scsnet import SteadyColors, decode_lab, encode_picture
from scsnet.checkpoint import load
from scsnet.color import rgb_to_lab

MARGIN = 1.25  # sides of the photo over those of the frames


def build_clip(photo: Image.Image, zoom: bool, width: int, frames: int) -> list[Tensor]:
    """Return frames (1, 3, H, W) in 0..1."""
    height = round(width * photo.height / photo.width)
    large = photo.resize((round(MARGIN * width), round(MARGIN * height)), Image.Resampling.LANCZOS)
    clip = []
    for n in range(frames):
        if zoom:
            w, h = (side * find_part(n, frames) for side in large.size)
            x, y = (large.width - w) / 2, (large.height - h) / 2
            box = (x, y, x + w, y + h)
            frame = large.resize((width, height), Image.Resampling.BICUBIC, box)
        else:
            x = n * max(1, width // 128)
            frame = large.crop((x, 0, x + width, height))
        clip.append(torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None] / 255)
    return clip


def find_part(n: int, frames: int) -> float:
    """Return the share of the photo's sides that frame n of a zoom shows."""
    return 1 - 0.2 * n / (frames - 1)


def measure_change(clip: list[Tensor], zoom: bool) -> float:
    """Return the mean |difference| of planes (1, C, H, W) of the same things from frame to frame."""
    changes = []
    height, width = clip[0].shape[2:]
    step = max(1, width // 128)
    for n, (old, new) in enumerate(pairwise(clip)):
        if zoom:
            ratio = find_part(n + 1, len(clip)) / find_part(n, len(clip))
            motion = torch.tensor([[[ratio, 0, 0], [0, ratio, 0]]])
            grid = F.affine_grid(motion, [1, 1, height, width], align_corners=False)
            changes.append((new - F.grid_sample(old, grid, align_corners=False)).abs().mean())
        else:
            changes.append((new[..., :-step] - old[..., step:]).abs().mean())
    return float(torch.stack(changes).mean())


def measure_psnr(clip: list[Tensor], truth: list[Tensor]) -> float:
    """Return the mean PSNR of the frames."""
    errors = [((a - b) ** 2).mean() for a, b in zip(clip, truth, strict=True)]
    return float(torch.stack([10 * torch.log10(110**2 / error) for error in errors]).mean())


@torch.inference_mode()
def main() -> None:
    """Print a row for each clip."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--frames", type=int, default=24)
    options = parser.parse_args()
    net = load("bundled", dtype=best())
    print(
        "| photo | clip | frame by frame | steady | photo itself | PSNR | steady | more CPU time |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for path in options.photos:
        for zoom in (False, True):
            with Image.open(path) as file:
                clip = build_clip(file.convert("RGB"), zoom, options.width, options.frames)
            size = (clip[0].shape[2], clip[0].shape[3])
            start = time.process_time()
            labs = [
                decode_lab(net, encode_picture(net, frame, inside=None), size) for frame in clip
            ]
            alone = time.process_time() - start
            steady = SteadyColors()
            start = time.process_time()
            steadied = [steady(lab) for lab in labs]
            more = (time.process_time() - start) / alone
            truth = [rgb_to_lab(frame) for frame in clip]
            colors = [[lab[:, 1:] for lab in film] for film in (labs, steadied, truth)]
            changes = [measure_change(film, zoom) for film in colors]
            psnr = [measure_psnr(film, colors[2]) for film in colors[:2]]
            cells = [*(f"{c:.3f}" for c in changes), *(f"{p:.2f}" for p in psnr), f"{more:.1%}"]
            print(
                f"| {path.stem[:24]} | {'zoom' if zoom else 'pan'} | {' | '.join(cells)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
