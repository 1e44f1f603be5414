"""scsnet colorize, for films: frame after frame, in one pass."""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..atomic_write import open_atomic
from ..films.formats import CONTAINERS, Codec, FilmError, choose_codec, format_time, is_film
from ..pictures import read_picture
from .paths import (
    MARK,
    CommandError,
    Task,
    check_not_read,
    check_place,
    create_folder,
    explain_os_error,
    take_share,
)

if TYPE_CHECKING:
    from ..features import ReferenceFeatures
    from ..films.read import FilmReader
    from ..films.write import FilmWriter
    from ..model import SCSNet

_NAMED = 10  # damaged frames named one by one

Colorizer = Callable[[np.ndarray], np.ndarray]
"""(H, W, 3) uint8 or uint16 of one frame -> the coloured frame, in the same dtype."""


def colorize_films(options: argparse.Namespace) -> int:
    """Exit code 0, or 1 where some films of several failed; CommandError and PictureError for the rest."""
    with explain_os_error():
        tasks = _plan(options)
    several, tasks = len(tasks) > 1, take_share(tasks)
    if not tasks:
        return 0
    try:
        codecs = [choose_codec(task.target, options.codec, options.crf) for task in tasks]
    except FilmError as error:
        raise CommandError(str(error)) from error
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise CommandError("films need PyAV: pip install 'scsnet[video]'") from error
    references = [read_picture(path) for path in options.reference]
    masks = [read_picture(path) for path in options.masks]

    from .session import encode_all, load_network, print_note, report_failures

    for picture in [*references, *masks]:
        for note in picture.notes:
            print_note(f"{picture.path}: {note}", options.quiet)
    net = load_network(options)
    reference = encode_all(net, references, masks, options.working_size)
    failures: list[str] = []
    for task, codec in zip(tasks, codecs, strict=True):
        try:
            _one(net, task, codec, reference, options)
        except (CommandError, FilmError) as error:
            if not several:
                raise CommandError(str(error)) from error
            failures.append(str(error))
    return report_failures(failures, len(tasks), "films")


def _plan(options: argparse.Namespace) -> list[Task]:
    """The films and their results; CommandError where something is missing, in the way or no film."""
    sources: list[Path] = []
    for text in options.inputs:
        if os.path.lexists(text):
            sources.append(Path(text))
        elif glob.has_magic(text) and (found := sorted(glob.glob(text, recursive=True))):  # noqa: PTH207
            sources += [Path(name) for name in found]
        else:
            raise CommandError(f"{text}: No such file or directory")
    sources = list(dict.fromkeys(sources))
    several = len(sources) > 1
    for source in sources:
        if source.is_dir() or (several and not is_film(source)):
            raise CommandError(f"{source}: is no film, and films are not mixed with others")
    output = None if options.output is None else Path(options.output)
    is_folder = output is not None and (output.is_dir() or options.output.endswith(("/", os.sep)))
    if several and output is not None and not is_folder:
        if output.suffix.lower() in CONTAINERS or output.exists():
            raise CommandError(f"{output}: the results of several films need a folder")
        is_folder = True
    tasks: list[Task] = []
    for source in sources:
        known = source.suffix.lower() in CONTAINERS and options.codec != "ffv1"
        ending = source.suffix if known else ".mkv"
        if output is None:
            target = source.with_name(source.stem + MARK + ending)
        else:
            target = output / (source.stem + ending) if is_folder else output
        check_not_read(target, [*sources, *options.reference, *options.masks])
        if any(task.target == target for task in tasks):
            raise CommandError(f"{target}: would be the result of two films")
        check_place(target, options.force)
        tasks.append(Task(source, target))
    return tasks


def _one(
    net: SCSNet,
    task: Task,
    codec: Codec,
    reference: ReferenceFeatures | None,
    options: argparse.Namespace,
) -> None:
    from ..films.read import FilmReader
    from ..films.write import FilmWriter, round_to_even
    from .session import (
        check_head,
        choose_output_size,
        explain_out_of_memory,
        print_note,
        print_result,
    )

    with FilmReader(task.source, options.start, options.stop) as film:
        asked = choose_output_size(task.source, (film.height, film.width), options, 1.0)
        check_head(net, (film.height, film.width), asked, options)
        size = round_to_even(codec, asked)
        if size != asked:
            print_note(
                f"{task.source}: {asked[1]} x {asked[0]} becomes {size[1]} x {size[0]}: this codec needs even sides",
                options.quiet,
            )
        colorizer = _build_colorizer(net, film, size, reference, options)
        begin = time.perf_counter()
        with (
            explain_out_of_memory(str(task.source)),
            _explain_writing(task.target),
            open_atomic(create_folder(task.target)) as file,
            FilmWriter(file, task.target, film, size, codec) as writer,
        ):
            count = _write_frames(film, writer, colorizer, options)
        seconds = time.perf_counter() - begin
        for note in [*film.notes, *writer.notes]:
            print_note(f"{task.source}: {note}", options.quiet)
    height, width = size
    print_result(
        f"{task.target}: {width} x {height}, {count} frames, {count / seconds:.2f} per second",
        options.quiet,
    )


def _write_frames(
    film: FilmReader, writer: FilmWriter, colorizer: Colorizer, options: argparse.Namespace
) -> int:
    """Colour and write all frames, copy the rest; the number of frames. A damaged one is shown as the one before."""
    from ..films.read import Frame
    from .session import Bar, print_note

    count = damaged = 0
    colored: np.ndarray | None = None
    with Bar(film.path.name, options.quiet, unit="frame") as bar:
        progress = bar.phase()
        for item in film:
            if not isinstance(item, Frame):
                writer.copy(item)
                continue
            if item.rgb is None:
                damaged += 1
                if damaged <= _NAMED:
                    moment = format_time(film.to_seconds(item.pts))
                    instead = "is left out" if colored is None else "shows the one before"
                    print_note(f"{film.path}: the frame at {moment} is damaged and {instead}")
            else:
                colored = colorizer(item.rgb)
            if colored is not None:
                writer.write(colored, item)
                count += 1
                progress(count, max(count, film.count or 0))
    if damaged > _NAMED:
        print_note(f"{film.path}: {damaged} frames in all are damaged")
    return count


def _build_colorizer(
    net: SCSNet,
    film: FilmReader,
    size: tuple[int, int],
    reference: ReferenceFeatures | None,
    options: argparse.Namespace,
) -> Colorizer:
    import torch

    from ..features import Features
    from ..films.margins import FilmMargins
    from ..films.steadiness import SteadyColors
    from ..pipeline import decode_lab, encode_luminance, extract_luminance, finish_lab
    from .session import retry_with_smaller_tiles

    margins = None if options.color_margins else FilmMargins()
    steady = None if options.independent_frames else SteadyColors()
    top = 65535 if film.deep else 255

    @torch.inference_mode()
    def colorizer(rgb: np.ndarray) -> np.ndarray:
        planes = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1), np.float32))
        luminance = extract_luminance(net, planes[None] / top)
        inside = None if margins is None else margins.add(luminance, net.config)

        def work(tile: int) -> tuple[Features, torch.Tensor]:
            features = encode_luminance(
                net,
                luminance,
                reference,
                working_size=options.working_size,
                inside=inside,
                tile=tile,
            )
            return features, decode_lab(net, features, size, tile=tile)

        features, lab = retry_with_smaller_tiles(work)
        if steady is not None:
            lab = steady(lab)
        colored = finish_lab(
            net,
            features,
            lab,
            strength=options.strength,
            luminance="input" if options.keep_luminance else None,
        )
        values = colored[0].mul_(top).round_().permute(1, 2, 0).cpu().numpy()
        return values.astype(rgb.dtype)

    return colorizer


@contextlib.contextmanager
def _explain_writing(target: Path) -> Iterator[None]:
    """Turn what the disk or the encoder refuses into a CommandError."""
    import av

    try:
        yield
    except (OSError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CommandError(f"{target}: cannot be written: {reason}") from error
