"""What the commands share: the network on its device, pictures as tensors, memory and progress."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from .. import checkpoint
from ..device import choose_device, choose_dtype, choose_threads, keep_freed_memory
from ..features import Features, ReferenceFeatures
from ..hints import Hint, paint_hints
from ..model import SCSNet
from ..pictures import Picture
from ..pipeline import encode_luminance, encode_references, extract_luminance, output_size
from ..texture import TILE
from .output import discard_stdout
from .paths import CommandError

T = TypeVar("T")

_BAND = 2**22  # pixels turned into floats at a time
_SMALLEST_TILE = 64


def print_note(line: str, quiet: bool = False) -> None:
    """Print one line on stderr, above the progress bars."""
    if not quiet:
        with contextlib.suppress(OSError):  # there is nowhere left to say it
            tqdm.write(line, file=sys.stderr)


def print_result(line: str, quiet: bool = False) -> None:
    """Print one line on stdout, above the progress bars; where it cannot be written the work goes on."""
    if quiet:
        return
    try:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
    except OSError as error:
        discard_stdout()
        if not isinstance(error, BrokenPipeError):  # whose reader has seen enough
            print_note(f"scsnet: stdout cannot be written: {error.strerror}; the work goes on")


def load_network(options: argparse.Namespace) -> SCSNet:
    """Load the network that --weights, --device and --dtype name; CommandError if that fails."""
    try:
        device = choose_device(options.device)
    except ValueError as error:
        raise CommandError(f"--device {options.device}: {error}") from error
    if str(device) == "cuda":  # not a numbered one
        device = torch.device("cuda", int(os.getenv("LOCAL_RANK", "0")))
    dtype = choose_dtype(device, options.dtype)
    torch.set_num_threads(choose_threads())
    keep_freed_memory()
    with explain_checkpoint_error(options.weights), Bar("weights", options.quiet, unit="B") as bar:
        return checkpoint.load(options.weights, device=device, dtype=dtype, progress=bar.phase())


@contextlib.contextmanager
def explain_checkpoint_error(source: str) -> Iterator[None]:
    """Turn the ValueErrors and OSErrors of scsnet.checkpoint into a CommandError that names the source."""
    try:
        yield
    except (ValueError, OSError) as error:
        text = " ".join(str(error).split())
        raise CommandError(text if source in text else f"--weights {source}: {text}") from error


def choose_output_size(
    source: Path, size: tuple[int, int], options: argparse.Namespace, scale: float
) -> tuple[int, int]:
    """Return height and width that the options ask for, of something of `size`; `scale` is the default. CommandError."""
    unset = options.size is None and options.long_side is None and options.scale is None
    try:
        return output_size(
            *size,
            scale=scale if unset else options.scale,
            size=options.size,
            long_side=options.long_side,
        )
    except ValueError as error:
        raise CommandError(f"{source}: {error}") from error


def check_head(
    net: SCSNet, size: tuple[int, int], full: tuple[int, int], options: argparse.Namespace
) -> None:
    """Raise CommandError if the network cannot bring a picture of `size` to `full`."""
    if net.config.head == "pixel_shuffle" and full != (4 * size[0], 4 * size[1]):
        raise CommandError(
            f"--weights {options.weights}: this network has a fixed head, only --scale 4 works"
        )


def report_failures(failures: list[str], count: int, what: str) -> int:
    """Print what failed of a number of pictures or films; return the exit code, 0 or 1."""
    for failure in failures:
        print_note(f"scsnet: error: {failure}")
    if failures:
        print_note(f"scsnet: {len(failures)} of {count} {what} failed")
    return 1 if failures else 0


def reference_tensor(picture: Picture) -> Tensor:
    """Convert a picture to RGB (1, 3, H, W) float32 0..1."""
    return _floats(picture, slice(None)).expand(1, 3, -1, -1)


def encode_all(
    net: SCSNet,
    references: list[Picture],
    masks: list[Picture],
    size: int | None,
    hinted: tuple[Tensor, Tensor] | None = None,
) -> ReferenceFeatures | None:
    """Encode the references once, for every picture of the run; None without references.

    `masks` belong to the first references; `hinted` is a painted photo and its mask, one more reference. Raises
    CommandError for a mask of another size, or without a white pixel.
    """
    if not references and hinted is None:
        return None
    planes: list[Tensor | None] = [None] * len(references)
    for number, (mask, picture) in enumerate(zip(masks, references, strict=False)):
        if mask.rgb.shape[:2] != picture.rgb.shape[:2]:
            raise CommandError(
                f"{mask.path}: expected a mask of {picture.width} x {picture.height} pixels as {picture.path}, "
                f"got {mask.width} x {mask.height}"
            )
        plane = reference_tensor(mask).mean(1, keepdim=True)
        if plane.max() < 0.5:
            raise CommandError(f"{mask.path}: the mask marks nothing, no pixel is white")
        planes[number] = plane
    with explain_out_of_memory("the references"):
        pictures = [reference_tensor(p) for p in references]
        if hinted is not None:
            pictures.append(hinted[0])
            planes.append(hinted[1])
        return encode_references(net, pictures, masks=planes, working_size=size)


def paint(picture: Picture, options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Paint the hints of the options on a picture: a reference and its mask. Raises CommandError for one outside."""
    hints = []
    for x, y, color, radius in options.hints:
        if not (0 <= x < picture.width and 0 <= y < picture.height):
            raise CommandError(
                f"{picture.path}: --hint {x:g},{y:g} lies outside of the picture of {picture.width} x {picture.height}"
            )
        place = ((x + 0.5) / picture.width, (y + 0.5) / picture.height)
        side = min(picture.width, picture.height)
        hint = Hint(*place, color)
        hints.append(hint if radius is None else hint._replace(radius=min(radius / side, 1.0)))
    return paint_hints(_floats(picture, slice(None)), hints)


@torch.inference_mode()
def encode(
    net: SCSNet,
    picture: Picture,
    reference: ReferenceFeatures | None,
    working_size: int | None,
    tile: int = TILE,
    progress: Callable[[int, int], None] | None = None,
    color_margins: bool = False,
) -> Features:
    """Encode a picture to features, without its even margins unless `color_margins` is set. The luminance is extracted band by band, which saves memory on large scans."""
    device = net.initial.weight.device
    luminance = torch.empty(1, 1, picture.height, picture.width, device=device)
    step = max(1, _BAND // picture.width)
    for top in range(0, picture.height, step):
        rows = slice(top, top + step)
        luminance[:, :, rows] = extract_luminance(net, _floats(picture, rows))
    return encode_luminance(
        net,
        luminance,
        reference,
        working_size=working_size,
        inside=None if color_margins else "auto",
        tile=tile,
        progress=progress,
    )


def _floats(picture: Picture, rows: slice) -> Tensor:
    part = torch.from_numpy(picture.rgb[rows]).permute(2, 0, 1)[None]
    return part if part.is_floating_point() else part.float().div_(255)


@contextlib.contextmanager
def explain_out_of_memory(what: str) -> Iterator[None]:
    """Turn running out of memory into a CommandError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        raise CommandError(f"{what}: not enough memory for this size") from error


def _is_memory(error: BaseException) -> bool:
    text = str(error).lower()
    # CUDA and MPS, Windows, Linux
    words = ("out of memory", "not enough memory", "defaultcpuallocator")
    return isinstance(error, MemoryError) or any(word in text for word in words)


def retry_with_smaller_tiles(work: Callable[[int], T]) -> T:
    """Call work(tile) with half the tile each time the device runs out of memory, down to 64."""
    tile = TILE
    while True:
        try:
            return work(tile)
        except (MemoryError, RuntimeError) as error:
            if not _is_memory(error) or tile <= _SMALLEST_TILE:
                raise
        tile //= 2


class Bar:
    """Progress bar over the tiles of one picture; hidden where stderr is not a terminal."""

    def __init__(self, name: str, quiet: bool, unit: str = "tile") -> None:
        self.bar = tqdm(
            desc=name,
            unit=unit,
            unit_scale=unit == "B",
            leave=False,
            delay=0.5,
            disable=True if quiet else None,
        )

    def phase(self) -> Callable[[int, int], None]:
        """Return a callback for (done, total) that counts from 0."""

        def progress(done: int, total: int) -> None:
            if total != self.bar.total or done < self.bar.n:
                self.bar.reset(total)
            self.bar.update(done - self.bar.n)

        return progress

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()
