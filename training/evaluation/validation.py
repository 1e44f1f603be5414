"""Figures and a picture of the validation photos during a run. Fast, not the last word: see evaluate.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scsnet import SCSNet
from scsnet.atomic_write import open_atomic
from scsnet.color import denormalize_lab, lab_to_rgb, normalize_lab, rgb_to_lab
from training.config.schedule import Place
from training.data.dataset import BICUBIC, stack_photos
from training.data.photos import Entry, read_squares, select_evenly
from training.data.references import distort_elastically

SHOWN = 8  # photos in the picture
AT_ONCE = 8


class Validation:
    """Photos read once, then `figures` as often as you like."""

    def __init__(self, entries: Sequence[Entry], count: int, bf16: bool) -> None:
        self.bf16 = bf16
        self.skipped: list[str] = []
        chosen = select_evenly(entries, count)
        self.squares = [square for _, square in read_squares(chosen, 512, self.skipped)]
        if not self.squares:
            raise ValueError(f"none of the validation photos can be read: {self.skipped[0]}")

    @torch.no_grad()
    def figures(self, net: SCSNet, place: Place, picture: Path) -> dict[str, float]:
        """Figures at the size and the largest magnification of the stage; writes the picture.

        Own reference (elastic), another photo's ("swap") and none ("auto"): PSNR of sRGB, mean |ab|
        error, chroma as a share of the truth's; the same of the gray picture. How often another photo's draws the
        mean colour towards its own.
        """
        was_training = net.training
        net.eval()
        size, target = place.stage.size, place.stage.largest_output
        truth = stack_photos(
            [np.asarray(s.resize((target, target), BICUBIC)) for s in self.squares]
        )
        low = stack_photos(
            [
                np.asarray(s.resize((target, target), BICUBIC).resize((size, size), BICUBIC))
                for s in self.squares
            ]
        )
        references = distort_elastically(low, torch.Generator().manual_seed(1)).clamp(0, 1)
        lab = rgb_to_lab(truth)
        gray = torch.cat([lab[:, :1], torch.zeros_like(lab[:, 1:])], dim=1)
        made = {
            "gray": gray,
            "auto": self._made(net, low, None, target, place),
            "own": self._made(net, low, references, target, place),
            "swap": self._made(net, low, references.roll(1, 0), target, place),
        }
        figures = {}
        for name, result in made.items():
            rgb = (lab_to_rgb(result, clip=True) * 255).round() / 255
            error = (rgb - truth).square().mean((1, 2, 3)).clamp_min(1e-10)
            figures[f"{name}_psnr"] = float((-10 * error.log10()).mean())
            figures[f"{name}_ab"] = float((result - lab)[:, 1:].abs().mean())
            figures[f"{name}_chroma"] = float(
                result[:, 1:].norm(dim=1).mean() / lab[:, 1:].norm(dim=1).mean().clamp_min(1e-6)
            )
        target_ab = rgb_to_lab(references)[:, 1:].mean((2, 3)).roll(1, 0)
        away = {n: (made[n][:, 1:].mean((2, 3)) - target_ab).norm(dim=1) for n in ("auto", "swap")}
        figures["swap_moves"] = float((away["swap"] < away["auto"]).float().mean())
        sheet = [lab_to_rgb(made[n], clip=True) for n in ("gray", "auto")]
        sheet += [torch.nn.functional.interpolate(references, (target, target), mode="nearest")]
        sheet += [lab_to_rgb(made["own"], clip=True), truth]
        write_sheet([rows[:SHOWN] for rows in sheet], picture)
        net.train(was_training)
        return {name: round(value, 4) for name, value in figures.items()}

    def _made(
        self, net: SCSNet, low: Tensor, references: Tensor | None, target: int, place: Place
    ) -> Tensor:
        """RGB (N, 3, h, w) -> LAB (N, 3, target, target) on the CPU."""
        device = next(net.parameters()).device
        parts = []
        for start in range(0, len(low), AT_ONCE):
            batch = slice(start, start + AT_ONCE)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                luminance = normalize_lab(rgb_to_lab(low[batch].to(device))[:, :1], net.config)
                memory = None
                if references is not None:
                    lab = normalize_lab(rgb_to_lab(references[batch].to(device)), net.config)
                    memory = net.encode_reference([lab])
                features = net.encode(luminance, memory)
                parts.append(
                    denormalize_lab(net.decode(features, (target, target)), net.config).cpu()
                )
        return torch.cat(parts)


def write_sheet(rows: Sequence[Tensor], path: Path) -> None:
    """Rows of pictures (N, 3, H, W) in 0..1 -> one PNG: a photo per column."""
    grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    image = Image.fromarray((grid.clamp(0, 1).permute(1, 2, 0) * 255).round().byte().numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomic(path) as file:
        image.save(file, "PNG")
