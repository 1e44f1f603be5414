"""Train the rows of Table 6: RDN with one head each, from the same seed, on the same patches, for the same steps."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from scsnet.atomic_write import open_atomic
from scsnet.device import choose_device
from training.config.overrides import CONFIG, check_same_options
from training.config.upscaling import SIZES, UpscalingConfig
from training.data.dataset import stack_photos
from training.data.photos import Cache, find_photos
from training.engine import checkpoints
from training.engine.checkpoints import CHECKPOINTS, RunError
from training.engine.loop import lock_folder
from training.engine.model_card import WEIGHTS
from training.models.backbones import load_tensors
from training.models.rdn import Upscaler
from training.models.upscaling_heads import FACTORS
from training.text import save_text

FORMAT = "rdn-training-1"
EVALUATION_ONLY = ("validation", "photos", "output", "save_every")
"""Options that may change without training a row again."""
CACHE = 2e9  # bytes of decoded photos


class Patches:
    """Pairs of patches by step, determined by the seed. Rows of other magnifications see the same photos."""

    def __init__(self, config: UpscalingConfig) -> None:
        self.config = config
        self.photos = Cache(find_photos(config.data), CACHE)
        self.unreadable: set[str] = set()
        largest = max(config.magnification[1], *FACTORS.values())
        self.least = round(config.patch * largest)

    def draw(self, step: int, factor: int | None) -> tuple[Tensor, Tensor]:
        """Return inputs (B, 3, p, p) and targets (B, 3, n, n) of a step, sRGB in 0..1.

        n / p is `factor`, or a random magnification if that is None. A target is a random patch of a photo, rotated by a
        multiple of 90 degrees and mirrored half the time; its input is the target resized, bicubic.
        """
        config = self.config
        rng = np.random.default_rng([config.seed, step])
        magnification = rng.uniform(*config.magnification)
        side = round(config.patch * (factor or magnification))
        targets, inputs = [], []
        for _ in range(config.batch):
            photo = self._draw_photo(rng)
            top, left = (int(rng.random() * (n - side + 1)) for n in photo.shape[:2])
            target = np.rot90(photo[top : top + side, left : left + side], int(rng.integers(4)))
            target = target[:, ::-1] if rng.random() < 0.5 else target
            low = Image.fromarray(np.ascontiguousarray(target))
            targets.append(target)
            inputs.append(np.asarray(low.resize((config.patch,) * 2, Image.Resampling.BICUBIC)))
        return stack_photos(inputs), stack_photos(targets)

    def _draw_photo(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a photo that is large enough for all rows; unreadable ones are printed once."""
        skipped: list[str] = []
        photo = self.photos.draw(rng, self.least, skipped)
        for reason in set(skipped) - self.unreadable:
            print(f"left out: {reason}")
        self.unreadable |= set(skipped)
        return photo


def train_row(row: str, config: UpscalingConfig) -> Upscaler:
    """Return the network of a row in eval mode, trained first if that has not been done.

    L1 loss, Adam. An interrupted row continues from its last checkpoint. Raises ValueError if it was trained with other
    options, RunError if another process is training it.
    """
    folder = Path(config.output, re.sub(r"\W+", "_", row))
    folder.mkdir(parents=True, exist_ok=True)
    options = {k: v for k, v in asdict(config).items() if k not in EVALUATION_ONLY}
    check_same_options(row, folder, options)
    save_text(folder / CONFIG, json.dumps(options, indent=2) + "\n")
    net = Upscaler(row, SIZES[config.rdn], config.seed).to(choose_device())
    weights = folder / WEIGHTS
    if weights.exists():
        net.load_state_dict(load_tensors(str(weights)))
    else:
        with lock_folder(folder):
            _train(row, net, config, folder / CHECKPOINTS)
            with open_atomic(weights) as file:
                file.write(safetensors.torch.save(net.state_dict()))
    return net.eval().requires_grad_(False)


def _train(row: str, net: Upscaler, config: UpscalingConfig, folder: Path) -> None:
    """Run the remaining steps of a row."""
    device = next(net.parameters()).device
    optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate)
    patches, start = Patches(config), 0
    if path := checkpoints.last(folder):
        state = checkpoints.load(path, FORMAT)
        net.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    bar = tqdm(range(start, config.steps), row, initial=start, total=config.steps, disable=None)
    for step in bar:
        rate = 0.5 * config.learning_rate * (1 + math.cos(math.pi * step / config.steps))
        optimizer.param_groups[0]["lr"] = rate
        low, target = (t.to(device) for t in patches.draw(step, FACTORS.get(row)))
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            prediction = net(low, (target.shape[2], target.shape[3]))
        loss = F.l1_loss(prediction, target)
        if not math.isfinite(loss.item()):
            raise RunError(f"{row}: the loss is {loss.item()} at step {step}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
        if (step + 1) % config.save_every == 0:
            state = {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"format": FORMAT, "step": step + 1}
            checkpoints.save(folder, step + 1, state, keep=1)
