"""scsnet colorize: pictures in, larger colour pictures out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from ..pictures import Picture, read_picture, write_picture
from ..pictures.formats import DEEP, FORMATS, PictureError, check_output_size, output_format
from .paths import (
    CommandError,
    Kind,
    Task,
    check_target,
    create_folder,
    explain_os_error,
    get_rank,
    plan,
    readable_endings,
    result_name,
)

if TYPE_CHECKING:
    from ..features import ReferenceFeatures
    from ..model import SCSNet
    from .session import Bar


class Geometry(NamedTuple):
    """What is rendered: a window of the whole picture brought to `full`."""

    full: tuple[int, int]
    """height and width of the output grid"""
    window: tuple[int, int, int, int]
    """top, left, height, width in that grid"""
    area: tuple[int, int, int, int]
    """x, y, width, height of the window in pixels of the input"""


def colorize(options: argparse.Namespace) -> int:
    """Colorize the pictures. Return 0, or 1 where some of several failed; CommandError and PictureError for the rest."""
    skipped: list[str] = []
    with explain_os_error():
        tasks, several = plan(
            options.inputs,
            options.output,
            kind=Kind("picture", readable_endings(), FORMATS, result_name, check_target),
            recursive=options.recursive,
            references=[*options.reference, *options.masks],
            force=options.force,
            notes=skipped,
        )
    # What costs little is checked before torch is imported.
    if several and options.hints:
        raise CommandError("--hint belongs to one picture, got several")
    for task in tasks if options.bits == 16 else []:
        if output_format(task.target) not in DEEP:
            raise CommandError(f"{task.target}: --bits 16 needs {' or '.join(DEEP)}")
    rank, processes = get_rank()
    tasks = tasks[rank::processes]
    if not tasks:
        return 0
    first = None if several else read_picture(tasks[0].source)
    references = [read_picture(path) for path in options.reference]
    masks = [read_picture(path) for path in options.masks]

    from .session import Bar, encode_all, load_network, paint, print_note, report_failures

    for note in skipped:
        print_note(note, options.quiet)
    for picture in [*references, *masks]:
        for note in picture.notes:
            print_note(f"{picture.path}: {note}", options.quiet)
    hinted = paint(first, options) if options.hints and first is not None else None
    net = load_network(options)
    reference = encode_all(net, references, masks, options.working_size, hinted)
    failures: list[str] = []
    with Bar("pictures", options.quiet or not several, unit="picture") as bar:
        progress = bar.phase()
        for number, task in enumerate(tasks):
            try:
                if several:
                    with explain_os_error():
                        check_target(task.target, options.force)
                _one(net, first or read_picture(task.source), task, reference, options)
            except (CommandError, PictureError) as error:
                if not several:
                    raise
                failures.append(str(error))
            first = None
            progress(number + 1, len(tasks))
    return report_failures(failures, len(tasks), "pictures")


def _one(
    net: SCSNet,
    picture: Picture,
    task: Task,
    reference: ReferenceFeatures | None,
    options: argparse.Namespace,
) -> None:
    from .session import Bar, check_head, explain_out_of_memory, print_note, print_result

    place = geometry(picture, options)
    _, _, height, width = place.window
    bits, depth_notes = choose_bits(picture, task.target, options)
    check_output_size(task.target, width, height, bits)
    check_head(net, (picture.height, picture.width), place.full, options)
    with explain_out_of_memory(str(task.source)):
        with Bar(task.source.name, options.quiet) as bar:
            rgb = _rendered(net, picture, place, reference, options, bits, bar)
        captions = picture.captions
        zoomed: list[str] = []
        if options.zoom:
            captions = captions.without_places(zoomed)
        notes = write_picture(
            create_folder(task.target),
            rgb,
            alpha=None if picture.alpha is None else _resized(picture.alpha, place),
            tags=picture.tags,
            captions=captions,
            dpi=_dpi(picture, place),
            overwrite=options.force,
        )
    for note in [*picture.notes, *_shape_note(place), *depth_notes, *zoomed, *notes]:
        print_note(f"{task.source}: {note}", options.quiet)
    print_result(f"{task.target}: {width} x {height}", options.quiet)


def choose_bits(
    picture: Picture, target: Path, options: argparse.Namespace
) -> tuple[int, list[str]]:
    """Return bits per channel of the result, 8 or 16, and a note where depth of the input is lost unasked."""
    can = output_format(target) in DEEP
    bits = options.bits or (16 if picture.deep and options.keep_luminance and can else 8)
    if not picture.deep or bits == 16 or options.bits:
        return bits, []
    how = "--bits 16 keeps more" if can else "PNG and TIFF hold 16"
    return bits, [f"has more than 8 bits of gray, the result has 8; {how}"]


def geometry(picture: Picture, options: argparse.Namespace) -> Geometry:
    """Compute the size and window that the options ask for; CommandError where they don't fit the picture."""
    from .session import choose_output_size

    x, y, w, h = area = options.zoom or (0, 0, picture.width, picture.height)
    if x + w > picture.width or y + h > picture.height:
        raise CommandError(
            f"{picture.path}: --zoom {x},{y},{w},{h} reaches beyond the picture of {picture.width} x {picture.height}"
        )
    height, width = choose_output_size(picture.path, (h, w), options, 4.0)
    full = (
        max(height, round(picture.height * height / h)),
        max(width, round(picture.width * width / w)),
    )
    top, left = (
        min(round(y * height / h), full[0] - height),
        min(round(x * width / w), full[1] - width),
    )
    return Geometry(full, (top, left, height, width), area)


def _rendered(
    net: SCSNet,
    picture: Picture,
    place: Geometry,
    reference: ReferenceFeatures | None,
    options: argparse.Namespace,
    bits: int,
    bar: Bar,
) -> np.ndarray:
    """Return (height, width, 3), uint8 or, of 16 bits, float32 0..1, as planes in memory."""
    import torch

    from ..pipeline import render
    from .session import encode, retry_with_smaller_tiles

    def work(tile: int) -> torch.Tensor:
        features = encode(
            net, picture, reference, options.working_size, tile, bar.phase(), options.color_margins
        )
        return render(
            net,
            features,
            place.full,
            place.window,
            strength=options.strength,
            luminance="input" if options.keep_luminance else None,
            dtype=torch.uint8 if bits == 8 else torch.float32,
            tile=tile,
            progress=bar.phase(),
        )

    return retry_with_smaller_tiles(work)[0].permute(1, 2, 0).cpu().numpy()


def _resized(alpha: np.ndarray, place: Geometry) -> np.ndarray:
    """Resize alpha (H, W) of the input to the window, bicubic, on the same grid as the colours."""
    x, y, w, h = place.area
    size = place.window[3], place.window[2]
    return np.asarray(
        Image.fromarray(alpha).resize(size, Image.Resampling.BICUBIC, (x, y, x + w, y + h))
    )


def _dpi(picture: Picture, place: Geometry) -> tuple[float, float] | None:
    if picture.dpi is None:
        return None
    _, _, w, h = place.area
    return picture.dpi[0] * place.window[3] / w, picture.dpi[1] * place.window[2] / h


def _shape_note(place: Geometry) -> list[str]:
    """Return a note where --size asks for another shape than the picture's."""
    stretch = (place.window[3] / place.area[2]) / (place.window[2] / place.area[3])
    if 0.98 < stretch < 1.02 or min(place.area[2:]) < 50:
        return []
    return [f"is stretched to {place.window[3]} x {place.window[2]}, which has another shape"]
