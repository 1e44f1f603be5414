"""Metrics and a contact sheet of the validation photos during a run. The full protocol is that of `training/evaluate.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from scsnet import SCSNet, encode_picture, render
from scsnet.atomic_write import open_atomic
from scsnet.color import rgb_to_gray, rgb_to_lab
from training.config.stage import Stage
from training.data.dataset import BICUBIC, stack_photos
from training.data.photos import Entry, read_squares, select_evenly
from training.data.references import distort_elastically

SHOWN = 8  # photos in the contact sheet
CHUNK = 8  # photos colorized at a time


class Validation:
    """A set of validation photos, read once. Raises ValueError if none can be read."""

    def __init__(self, entries: Sequence[Entry], count: int) -> None:
        skipped: list[str] = []
        chosen = select_evenly(entries, count)
        self.squares = [square for _, square in read_squares(chosen, 512, skipped)]
        if not self.squares:
            raise ValueError(f"none of the validation photos can be read: {skipped[0]}")
        for reason in skipped:
            print(f"left out a validation photo: {reason}")

    def compute(self, net: SCSNet, stage: Stage, picture: Path) -> dict[str, float]:
        """Compute metrics at the input size and the largest magnification of a stage, and write the contact sheet.

        For results without a reference ("auto"), with an elastically distorted copy ("own") and with another photo
        ("swap"), and for the gray photo: PSNR of sRGB in dB, mean |ab| error in CIE units, mean chroma relative to the
        target's. "swap_moves" is the fraction of photos whose mean ab moves towards that of the other photo.
        """
        was_training = net.training
        net.eval()
        size, output = stage.size, stage.largest_output
        full = [square.resize((output, output), BICUBIC) for square in self.squares]
        target = stack_photos([np.asarray(square) for square in full])
        low = stack_photos([np.asarray(square.resize((size, size), BICUBIC)) for square in full])
        references = distort_elastically(low, torch.Generator().manual_seed(1)).clamp(0, 1)
        predictions = {
            "gray": rgb_to_gray(target).expand_as(target),
            "auto": self._colorize(net, low, None, output),
            "own": self._colorize(net, low, references, output),
            "swap": self._colorize(net, low, references.roll(1, 0), output),
        }
        target_ab = rgb_to_lab(target)[:, 1:]
        metrics: dict[str, float] = {}
        mean_ab: dict[str, Tensor] = {}
        for name, prediction in predictions.items():
            ab = rgb_to_lab(prediction)[:, 1:]
            mean_ab[name] = ab.mean((2, 3))
            error = (prediction - target).square().mean((1, 2, 3)).clamp_min(1e-10)
            chroma = target_ab.norm(dim=1).mean().clamp_min(1e-6)
            metrics[f"{name}_psnr"] = float((-10 * error.log10()).mean())
            metrics[f"{name}_ab"] = float((ab - target_ab).abs().mean())
            metrics[f"{name}_chroma"] = float(ab.norm(dim=1).mean() / chroma)
        reference_ab = rgb_to_lab(references)[:, 1:].mean((2, 3)).roll(1, 0)
        distance = {n: (mean_ab[n] - reference_ab).norm(dim=1) for n in ("auto", "swap")}
        metrics["swap_moves"] = float((distance["swap"] < distance["auto"]).float().mean())
        shown = F.interpolate(references, (output, output), mode="nearest")
        rows = predictions["gray"], predictions["auto"], shown, predictions["own"], target
        write_contact_sheet([row[:SHOWN] for row in rows], picture)
        net.train(was_training)
        return {name: round(value, 4) for name, value in metrics.items()}

    @staticmethod
    def _colorize(net: SCSNet, low: Tensor, references: Tensor | None, output: int) -> Tensor:
        """Colorize photos (N, 3, h, w) with a reference each; returns 8-bit sRGB (N, 3, output, output) in 0..1 on the CPU."""
        parts = []
        for start in range(0, len(low), CHUNK):
            chunk = slice(start, start + CHUNK)
            given = [] if references is None else [references[chunk]]
            features = encode_picture(net, low[chunk], given)
            rgb = render(net, features, (output, output))
            parts.append((rgb * 255).round().cpu() / 255)
        return torch.cat(parts)


def write_contact_sheet(rows: Sequence[Tensor], path: Path) -> None:
    """Write rows of pictures (N, 3, H, W) in 0..1 to one PNG, a photo per column."""
    grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    image = Image.fromarray((grid.clamp(0, 1).permute(1, 2, 0) * 255).round().byte().numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomic(path) as file:
        image.save(file, "PNG")
