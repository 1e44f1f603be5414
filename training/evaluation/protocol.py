"""The protocol of the tables: photos through the network as users run it, and metrics of every result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from scsnet import SCSNet, encode_picture, render
from scsnet.color import rgb_to_gray
from training.data.degradations import degrade
from training.data.photos import Entry, read_squares
from training.data.references import distort_elastically
from training.evaluation import image_metrics

MODES = ("auto", "self", "random", "dots", "margins")
DOT = 3  # pixels of the input: side of a dot of colour
MARGINS = {"white": 255, "black": 0, "gray": 128, "paper": 225}  # sRGB
MARGIN_FRACTIONS = (0.02, 0.05)  # of a side
BICUBIC = Image.Resampling.BICUBIC
Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How inputs and references are made, and which modes are measured."""

    size: int = 512
    """Side of the truth: the centre square of a photo, bicubic where it is not of this size."""
    magnification: float = 4.0
    """The input is the truth brought down by this factor, bicubic."""
    modes: tuple[str, ...] = MODES
    """Which of auto, self (reference: an elastic copy of the truth), random (of another photo), dots (the truth, masked but
    for dots of 3 pixels of the input) and margins (how much margins move the automatic colours inside). auto is always
    measured, unless there are none."""
    dots: int = 20
    """Number of dots."""
    working_size: int | None = None
    """Of the colour branch; None: what the weights were trained at."""
    degraded: bool = False
    """Inputs look like scans of old prints (training.data.degradations); the truth stays what it is."""
    seed: int = 1
    """Of distortions and of which photo is whose random reference."""

    def __post_init__(self) -> None:
        if self.size < 16 or not 0.1 <= self.magnification <= 64:
            raise ValueError(
                "expected size >= 16 and magnification in 0.1..64, "
                f"got {self.size} and {self.magnification}"
            )
        if unknown := set(self.modes) - set(MODES):
            raise ValueError(f"modes are {', '.join(MODES)}, got {sorted(unknown)[0]!r}")

    @property
    def low(self) -> int:
        """Side of the input."""
        return max(1, round(self.size / self.magnification))


@dataclass
class Score:
    """Metrics over a set of photos."""

    rows: dict[str, Figures]
    """Name of the row -> means over the photos."""
    photo_rows: dict[str, dict[str, Figures]]
    """Name of the row -> name of the photo -> its metrics."""
    moved: float | None
    """Share of random references that drew the picture's mean ab towards their own."""
    margin_shift: float | None
    """Mean distance in ab inside a margin between results with and without it, relative to the mean chroma without."""
    seconds: dict[str, float]
    """Mode -> median time per picture, from gray input to result."""
    photos: int
    skipped: list[str] = field(default_factory=list)


def to_tensor(picture: Image.Image | np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> (1, 3, H, W) in 0..1."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def to_uint8(rgb: Tensor) -> np.ndarray:
    """(1, 3, H, W) in 0..1 -> uint8 (H, W, 3)."""
    return (rgb[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def colorize_photos(
    net: SCSNet,
    photos: Tensor,
    references: Sequence[Tensor],
    size: tuple[int, int],
    working_size: int | None = None,
    masks: Sequence[Tensor | None] = (),
) -> Tensor:
    """Colorize and enlarge photos as users do: `encode_picture`, then `render`.

    photos (B, 1 or 3, h, w), of which the luminance is used, and references, each (1 or B, 3, h', w'): sRGB in 0..1; masks
    as for `encode_references`. Returns sRGB (B, 3, H, W) of `size` = (H, W), on the device and in the precision of the weights.
    """
    features = encode_picture(
        net, photos, references, reference_masks=masks, working_size=working_size
    )
    return render(net, features, size)


class Colorizer:
    """`colorize_photos` under a protocol; keeps the times."""

    def __init__(self, net: SCSNet, protocol: Protocol) -> None:
        self.net, self.protocol = net.eval(), protocol
        self.seconds: dict[str, list[float]] = {}

    def __call__(
        self, low: Tensor, reference: Tensor | None, mode: str, mask: Tensor | None = None
    ) -> np.ndarray:
        """Gray input (1, 1 or 3, h, w), reference, sRGB in 0..1, and its mask -> uint8 (H, W, 3)."""
        protocol = self.protocol
        began = time.perf_counter()
        references = [] if reference is None else [reference]
        size = (protocol.size, protocol.size)
        masks = [mask] * len(references)
        rgb = colorize_photos(self.net, low, references, size, protocol.working_size, masks)
        result = to_uint8(rgb)
        self.seconds.setdefault(mode, []).append(time.perf_counter() - began)
        return result


def make_reference(rgb: Tensor, seed: int) -> Tensor:
    """An elastic copy (1, 3, h, w), the same for the same seed."""
    return distort_elastically(rgb, torch.Generator().manual_seed(seed)).clamp(0, 1)


def scan(rgb: Tensor, seed: int) -> Tensor:
    """(1, 3, h, w) as a scan of an old print of it."""
    return to_tensor(degrade(to_uint8(rgb), np.random.default_rng(seed)))


def draw_dots(size: tuple[int, int], count: int, rng: np.random.Generator) -> Tensor:
    """Draw a mask (1, 1, H, W) of square dots of `DOT` pixels at random places."""
    mask = torch.zeros(1, 1, *size)
    for _ in range(count):
        top, left = (int(rng.integers(0, max(1, n - DOT + 1))) for n in size)
        mask[..., top : top + DOT, left : left + DOT] = 1
    return mask


def add_margin(rgb: Tensor, number: int) -> tuple[Tensor, int]:
    """Put an even margin around (1, 3, h, w), another one for each number; return its width in pixels too."""
    level = list(MARGINS.values())[number % len(MARGINS)] / 255
    fraction = MARGIN_FRACTIONS[number // len(MARGINS) % len(MARGIN_FRACTIONS)]
    width = max(1, round(fraction * min(rgb.shape[2:])))
    return F.pad(rgb, (width,) * 4, value=level), width


def crop_margin(picture: np.ndarray, width: int, size: int) -> np.ndarray:
    """Cut a margin of `width` input pixels from the result of an input of `size` x `size` -> uint8, of the result's size."""
    image = Image.fromarray(picture)
    start, stop = width / size * image.width, (size - width) / size * image.width
    return np.asarray(image.resize(image.size, BICUBIC, (start, start, stop, stop)))


def score(
    colorize: Callable[..., np.ndarray],
    entries: Sequence[Entry],
    protocol: Protocol,
    keep: Callable[[str, dict[str, np.ndarray]], Any] | None = None,
    progress: Callable[[], Any] | None = None,
    results: Mapping[str, Callable[[str, int], np.ndarray | None]] | None = None,
) -> Score:
    """Compute the metrics of all modes over all photos. `keep` is called with the name of a photo and its pictures.

    `colorize` takes input, reference, mode and mask as `Colorizer` does. `results` are other systems: name and side of a
    photo -> their picture of it, uint8 (side, side, 3), or None.
    """
    figures: dict[str, dict[str, Figures]] = {}
    moved: list[bool] = []
    shifts: list[tuple[float, float]] = []
    skipped: list[str] = []
    rng = np.random.default_rng(protocol.seed)
    partners = _derangement(len(entries), rng)
    count = 0
    for index, (entry, square) in enumerate(read_squares(entries, protocol.size, skipped)):
        pictures = {"truth": np.asarray(square)}
        low = to_tensor(square.resize((protocol.low, protocol.low), BICUBIC))
        input_rgb = scan(low, protocol.seed + index) if protocol.degraded else low
        black_and_white = Image.fromarray(to_uint8(rgb_to_gray(input_rgb)))
        pictures["gray + bicubic"] = np.asarray(black_and_white.resize(square.size, BICUBIC))
        enlarged = Image.fromarray(to_uint8(low)).resize(square.size, BICUBIC)
        pictures["true colour + bicubic"] = np.asarray(enlarged)
        if protocol.modes:
            pictures["auto"] = colorize(input_rgb, None, "auto")
        if "self" in protocol.modes:
            pictures["self"] = colorize(
                input_rgb, make_reference(low, protocol.seed + index), "self"
            )
        if "random" in protocol.modes:
            candidates = [entries[i] for i in np.roll(partners, -index)]
            others = read_squares([p for p in candidates if p is not entry], protocol.low, [])
            if (other := next(others, None)) is not None:
                reference = make_reference(to_tensor(other[1]), protocol.seed + index)
                pictures["random"] = colorize(input_rgb, reference, "random")
                pictures["reference"] = to_uint8(reference)
                moved.append(
                    image_metrics.moves_towards(
                        pictures["auto"], pictures["random"], pictures["reference"]
                    )
                )
        if "dots" in protocol.modes:
            dots_rng = np.random.default_rng((protocol.seed, index))
            mask = draw_dots((protocol.low, protocol.low), protocol.dots, dots_rng)
            pictures["dots"] = colorize(input_rgb, low, "dots", mask)
        if "margins" in protocol.modes:
            framed, width = add_margin(input_rgb, index)
            inside = crop_margin(colorize(framed, None, "margins"), width, framed.shape[3])
            shifts.append(image_metrics.measure_color_shift(pictures["auto"], inside))
        for name, read in (results or {}).items():
            if (picture := read(entry.name, protocol.size)) is not None:
                pictures[name] = picture
        compared = {name: picture for name, picture in pictures.items() if name != "reference"}
        with ThreadPoolExecutor() as pool:
            metrics = pool.map(
                image_metrics.compare,
                compared.values(),
                repeat(image_metrics.Target(pictures["truth"])),
                repeat(math.ceil(protocol.magnification)),
            )
            for name, row in zip(compared, metrics, strict=True):
                figures.setdefault(name, {})[entry.name] = row
        if keep is not None:
            keep(entry.name, pictures)
        if progress is not None:
            progress()
        count += 1
    if not count:
        raise ValueError(f"none of the {len(entries)} photos can be read; the first: {skipped[0]}")
    rows = {
        name: image_metrics.aggregate(list(photos.values())) for name, photos in figures.items()
    }
    seconds = getattr(colorize, "seconds", {})
    medians = {mode: float(np.median(values)) for mode, values in seconds.items()}
    share = float(np.mean(moved)) if moved else None
    shift, chroma = np.sum(shifts, 0) if shifts else (0.0, 0.0)
    relative = float(shift / chroma) if chroma else None
    return Score(rows, figures, share, relative, medians, count, skipped)


def _derangement(count: int, rng: np.random.Generator) -> np.ndarray:
    """A random partner for each of `count`, nobody its own (but where there is only one)."""
    order = rng.permutation(count)
    partner = np.empty(count, dtype=int)
    partner[order] = np.roll(order, 1)
    return partner


def count_parameters(net: SCSNet) -> dict[str, int]:
    """Mode -> numbers that it uses; the automatic mode has no reference encoder and no cross attention."""
    total = sum(p.numel() for p in net.parameters())
    unused = sum(
        p.numel() for module in net.color_branch.only_reference for p in module.parameters()
    )
    automatic = dict.fromkeys(("auto", "margins"), total - unused)
    return automatic | dict.fromkeys(("self", "random", "dots"), total)


def picture_name(name: str) -> str:
    """The end of a photo's name, fit for a file."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(name.split(":")[-1]).stem)
