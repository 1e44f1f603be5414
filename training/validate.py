"""Figures and a picture of the validation photos during a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scsnet import SCSNet
from scsnet.color import denormalize_lab, lab_to_rgb, normalize_lab, rgb_to_lab

from .data import find_photos, planes, read_photo
from .elastic import elastic_copy


def centre_squares(folder: Path, size: int, count: int) -> torch.Tensor:
    """The first `count` photos, centre square, bicubic (N, 3, size, size) in 0..1."""
    squares = []
    for path in find_photos(folder)[:count]:
        photo = read_photo(path)
        assert photo is not None
        height, width = photo.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        crop = Image.fromarray(photo[top : top + side, left : left + side])
        squares.append(np.asarray(crop.resize((size, size), Image.Resampling.BICUBIC)))
    return planes(squares)


@torch.no_grad()
def validate(net: SCSNet, folder: Path, size: int, pictures: Path, count: int = 60) -> dict[str, float]:
    """Mean |ab error| (CIE units) with the own elastic reference and without, at x1, and chroma."""
    was_training = net.training
    net.eval()
    rgb = centre_squares(folder, size, count)
    lab = rgb_to_lab(rgb)
    low = normalize_lab(lab, net.config)
    references = elastic_copy(low, torch.Generator().manual_seed(1))
    results: dict[str, list[torch.Tensor]] = {"own": [], "swap": [], "auto": []}
    with torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(low), 20):
            part = slice(start, start + 20)
            own = references[part]
            for name, reference in (("own", own), ("swap", own.roll(1, 0)), ("auto", None)):
                memory = None if reference is None else net.encode_reference([reference], size)
                features = net.encode(low[part, :1], memory, working_size=size)
                results[name].append(denormalize_lab(net.decode(features, (size, size)), net.config))
    figures = {"gray": float(lab[:, 1:].abs().mean())}
    sheet = [lab_to_rgb(lab * torch.tensor([1.0, 0, 0])[:, None, None], clip=True)[:12]]
    for name, parts in results.items():
        predicted = torch.cat(parts)
        figures[name] = float((predicted[:, 1:] - lab[:, 1:]).abs().mean())
        figures[f"{name}_chroma"] = float(
            predicted[:, 1:].norm(dim=1).mean() / lab[:, 1:].norm(dim=1).mean()
        )
        sheet.append(lab_to_rgb(predicted, clip=True)[:12])
    sheet.append(rgb[:12])
    pictures.mkdir(exist_ok=True, parents=True)
    rows = torch.cat([torch.cat(list(row), dim=2) for row in sheet], dim=1)
    image = Image.fromarray((rows.permute(1, 2, 0) * 255).round().byte().numpy())
    image.resize((image.width * 2, image.height * 2)).save(pictures / "validation.png")
    net.train(was_training)
    return {name: round(value, 3) for name, value in figures.items()}
