"""The protocol of the tables: colorize photos as users do, and compute the metrics of every result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from scsnet import SCSNet, encode_picture, render
from scsnet.color import rgb_to_gray
from training.data.degradations import degrade
from training.data.photos import BadPhotoError, Entry, find_photos, read_photo, read_squares
from training.data.references import distort_elastically
from training.evaluation import image_metrics

MODES = ("auto", "self", "random", "dots", "margins")
DOT = 3  # side of a dot of colour, in pixels of the input
MARGINS = {"white": 255, "black": 0, "gray": 128, "paper": 225}  # sRGB
MARGIN_FRACTIONS = (0.02, 0.05)  # of a side
BICUBIC = Image.Resampling.BICUBIC
Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Options of the protocol: inputs, references and modes."""

    size: int = 512
    """Side of the truth, which is the centre square of a photo, resized bicubic."""
    magnification: float = 4.0
    """Factor by which the truth is reduced to the input, bicubic."""
    modes: tuple[str, ...] = MODES
    """References that are measured: auto (none), self (an elastic copy of the truth), random (of another photo), dots (the
    truth in 3 x 3 pixels each), and margins (how much a margin changes the automatic colours inside). auto is always
    measured, unless no mode is given."""
    dots: int = 20
    """Number of dots."""
    working_size: int | None = None
    """Working size of the colour branch. None: that of the weights."""
    degraded: bool = False
    """Degrade the inputs like scans of old prints (training.data.degradations)."""
    seed: int = 1
    """Seed of the distortions, the dots and the choice of random references."""

    def __post_init__(self) -> None:
        if self.size < 16 or not 0.1 <= self.magnification <= 64:
            given = f"{self.size} and {self.magnification}"
            raise ValueError(f"expected size >= 16 and magnification in 0.1..64, got {given}")
        if unknown := set(self.modes) - set(MODES):
            raise ValueError(f"modes are {', '.join(MODES)}, got {sorted(unknown)[0]!r}")

    @property
    def low(self) -> int:
        """Side of the input."""
        return max(1, round(self.size / self.magnification))


@dataclass
class Score:
    """Metrics of all results over a set of photos."""

    rows: dict[str, Figures]
    """Name of the row -> means over the photos."""
    photo_rows: dict[str, dict[str, Figures]]
    """Name of the row -> name of the photo -> its metrics."""
    moved: float | None
    """Share of the random references that move the mean ab of the result towards their own."""
    margin_shift: float | None
    """Mean distance in ab inside a margin between results with and without it, relative to the mean chroma without."""
    seconds: dict[str, float]
    """Mode -> median seconds per picture, from gray input to result."""
    photos: int
    """Number of photos."""
    skipped: list[str]
    """Photos that could not be read, and problems of other systems' results, each with the reason."""


def to_tensor(picture: Image.Image | np.ndarray) -> Tensor:
    """Convert uint8 (H, W, 3) to float32 (1, 3, H, W) in 0..1."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def to_uint8(rgb: Tensor) -> np.ndarray:
    """Convert (1, 3, H, W) in 0..1 to uint8 (H, W, 3), clamped and rounded."""
    return (rgb[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


class Colorizer:
    """Colorizes single photos under a protocol, and keeps the seconds of each by mode."""

    def __init__(self, net: SCSNet, protocol: Protocol) -> None:
        self.net, self.protocol = net.eval(), protocol
        self.seconds: dict[str, list[float]] = {}

    def __call__(
        self, low: Tensor, reference: Tensor | None, mode: str, mask: Tensor | None = None
    ) -> np.ndarray:
        """Colorize an input (1, 1 or 3, h, w), sRGB in 0..1, with a reference and its mask; returns uint8 (H, W, 3)."""
        began = time.perf_counter()
        references, masks = ([], []) if reference is None else ([reference], [mask])
        options: dict[str, Any] = {"working_size": self.protocol.working_size}
        features = encode_picture(self.net, low, references, reference_masks=masks, **options)
        result = to_uint8(render(self.net, features, (self.protocol.size,) * 2))
        self.seconds.setdefault(mode, []).append(time.perf_counter() - began)
        return result


def make_reference(rgb: Tensor, seed: int) -> Tensor:
    """Return an elastic copy of a photo (1, 3, h, w) in 0..1, determined by the seed."""
    return distort_elastically(rgb, torch.Generator().manual_seed(seed)).clamp(0, 1)


def enlarge(rgb: Tensor, side: int) -> np.ndarray:
    """Resize (1, 1 or 3, h, w) in 0..1 to uint8 (side, side, 3), bicubic."""
    picture = Image.fromarray(to_uint8(rgb.expand(-1, 3, -1, -1)))
    return np.asarray(picture.resize((side, side), BICUBIC))


def draw_dots(side: int, count: int, rng: np.random.Generator) -> Tensor:
    """Draw a mask (1, 1, side, side) that is 1 in square dots of `DOT` pixels at random places."""
    mask = torch.zeros(1, 1, side, side)
    for _ in range(count):
        top, left = rng.integers(0, max(1, side - DOT + 1)), rng.integers(0, max(1, side - DOT + 1))
        mask[..., top : top + DOT, left : left + DOT] = 1
    return mask


def add_margin(rgb: Tensor, number: int) -> tuple[Tensor, int]:
    """Pad a photo (1, 3, h, w) by an even margin, whose colour and width depend on the number; return its width too."""
    level = list(MARGINS.values())[number % len(MARGINS)] / 255
    fraction = MARGIN_FRACTIONS[number // len(MARGINS) % len(MARGIN_FRACTIONS)]
    width = max(1, round(fraction * min(rgb.shape[2:])))
    return F.pad(rgb, (width,) * 4, value=level), width


def crop_margin(picture: np.ndarray, width: int, size: int) -> np.ndarray:
    """Crop the margin from a result and resize what is left to the result's size.

    picture: uint8 (H, W, 3), from an input of `size` x `size` pixels with a margin of `width` pixels.
    """
    image = Image.fromarray(picture)
    start, stop = width / size * image.width, (size - width) / size * image.width
    return np.asarray(image.resize(image.size, BICUBIC, (start, start, stop, stop)))


def score(
    colorize: Callable[..., np.ndarray],
    entries: Sequence[Entry],
    protocol: Protocol,
    keep: Callable[[str, dict[str, np.ndarray]], Any] | None = None,
    results: Mapping[str, Callable[[str, int], np.ndarray | None]] | None = None,
) -> Score:
    """Compute the metrics of all modes over all photos. Raises ValueError if none can be read.

    `colorize` takes input, reference, mode and mask, as `Colorizer`. `keep` is called with the name of each photo and its
    pictures. `results` has other systems: functions from the name and side of a photo to their picture of it, uint8 (side,
    side, 3), or None.
    """
    figures: dict[str, dict[str, Figures]] = {}
    moved: list[bool] = []
    shifts: list[tuple[float, float]] = []
    skipped: list[str] = []
    partners = draw_partners(len(entries), np.random.default_rng(protocol.seed))
    size, modes, count = protocol.size, protocol.modes, 0
    bar = tqdm(entries, unit="photo", disable=None)
    for index, (entry, square) in enumerate(read_squares(bar, size, skipped)):
        seed = protocol.seed + index
        low = input_rgb = to_tensor(square.resize((protocol.low, protocol.low), BICUBIC))
        if protocol.degraded:
            input_rgb = to_tensor(degrade(to_uint8(low), np.random.default_rng(seed)))
        pictures = {"truth": np.asarray(square)}
        pictures["gray + bicubic"] = enlarge(rgb_to_gray(input_rgb), size)
        pictures["true colour + bicubic"] = enlarge(low, size)
        if modes:
            pictures["auto"] = colorize(input_rgb, None, "auto")
        if "self" in modes:
            pictures["self"] = colorize(input_rgb, make_reference(low, seed), "self")
        if "random" in modes:
            candidates = [entries[i] for i in np.roll(partners, -index)]
            others = read_squares([p for p in candidates if p is not entry], protocol.low, [])
            if (other := next(others, None)) is not None:
                reference = make_reference(to_tensor(other[1]), seed)
                pictures["random"] = colorize(input_rgb, reference, "random")
                pictures["reference"] = to_uint8(reference)
                three = (pictures[name] for name in ("auto", "random", "reference"))
                moved.append(image_metrics.moves_towards(*three))
        if "dots" in modes:
            rng = np.random.default_rng((protocol.seed, index))
            mask = draw_dots(protocol.low, protocol.dots, rng)
            pictures["dots"] = colorize(input_rgb, low, "dots", mask)
        if "margins" in modes:
            framed, width = add_margin(input_rgb, index)
            inside = crop_margin(colorize(framed, None, "margins"), width, framed.shape[3])
            shifts.append(image_metrics.measure_color_shift(pictures["auto"], inside))
        for name, read in (results or {}).items():
            if (picture := read(entry.name, size)) is not None:
                pictures[name] = picture
        target, border = image_metrics.Target(pictures["truth"]), ceil(protocol.magnification)
        compared = {name: picture for name, picture in pictures.items() if name != "reference"}
        compare = partial(image_metrics.compare, target=target, border=border)
        with ThreadPoolExecutor() as pool:
            for name, row in zip(compared, pool.map(compare, compared.values()), strict=True):
                figures.setdefault(name, {})[entry.name] = row
        if keep is not None:
            keep(entry.name, pictures)
        count += 1
    if not count:
        raise ValueError(f"none of the {len(entries)} photos can be read; the first: {skipped[0]}")
    rows = {name: image_metrics.aggregate([*photos.values()]) for name, photos in figures.items()}
    seconds = getattr(colorize, "seconds", {})
    medians = {mode: float(np.median(values)) for mode, values in seconds.items()}
    share = float(np.mean(moved)) if moved else None
    shift, chroma = np.sum(shifts, 0) if shifts else (0.0, 0.0)
    relative = float(shift / chroma) if chroma else None
    return Score(rows, figures, share, relative, medians, count, skipped)


def draw_partners(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random partner for each of `count` photos, never itself unless there is only one."""
    order = rng.permutation(count)
    partner = np.empty(count, dtype=int)
    partner[order] = np.roll(order, 1)
    return partner


def count_parameters(net: SCSNet) -> dict[str, int]:
    """Count the parameters that each mode uses; without a reference its encoder and the cross attention are not used."""
    total = sum(p.numel() for p in net.parameters())
    only_reference = net.color_branch.only_reference
    unused = sum(p.numel() for module in only_reference for p in module.parameters())
    automatic = dict.fromkeys(("auto", "margins"), total - unused)
    return automatic | dict.fromkeys(("self", "random", "dots"), total)


def picture_name(name: str) -> str:
    """Return the stem of a photo's name, with underscores for characters that a file name may not have."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(name.split(":")[-1]).stem)


class ResultFolder:
    """Pictures that another system made of photos, each named like its photo, with any suffix.

    Raises ValueError if none of the pictures has the name of a photo.
    """

    def __init__(self, folder: str, entries: Sequence[Entry]) -> None:
        self.folder = folder
        found = {picture_name(entry.name): entry for entry in find_photos([folder])}
        names = {picture_name(entry.name) for entry in entries}
        self.pictures = {name: found[name] for name in names & set(found)}
        if not self.pictures:
            problem = f"no picture in {folder} has the name of a photo"
            raise ValueError(f"{problem}: expected {min(names)}, got {min(found)}")
        self.problems = [f"no photo for {Path(found[n].name).name}" for n in set(found) - names]
        self.problems += [f"missing: {name}" for name in names - set(found)]

    def read(self, name: str, side: int) -> np.ndarray | None:
        """Return the picture of a photo, uint8 (side, side, 3), or None and note the problem in `problems`."""
        if (entry := self.pictures.get(picture_name(name))) is None:
            return None
        try:
            picture = read_photo(entry)
            if picture.shape[:2] == (side, side):
                return picture
            got = f"{picture.shape[1]} x {picture.shape[0]}"
            problem = f"{Path(entry.name).name}: expected {side} x {side} pixels, got {got}"
        except BadPhotoError as error:
            problem = str(error)
        self.problems.append(problem)
        return None
