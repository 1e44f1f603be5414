"""scsnet colorize, for films: frame after frame, in one pass; several processes share the shots of each film."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..atomic_write import open_atomic
from ..films.formats import (
    CONTAINERS,
    ENDINGS,
    Codec,
    FilmError,
    choose_codec,
    format_time,
    is_film,
)
from ..pictures import read_picture
from .paths import (
    CommandError,
    Kind,
    Task,
    check_place,
    create_folder,
    explain_os_error,
    get_rank,
    plan,
)

if TYPE_CHECKING:
    import av

    from ..features import ReferenceFeatures
    from ..films.parts import ShotDealer
    from ..films.read import FilmReader
    from ..films.write import FilmWriter
    from ..model import SCSNet
    from .frames import FrameColorizer
    from .team import Share

_NAMED = 10  # damaged frames named one by one

Painter = Callable[[np.ndarray], "av.VideoFrame"]
"""(H, W, 3) uint8 or uint16 of one frame -> the coloured frame in the planes of the codec."""


def colorize_films(options: argparse.Namespace) -> int:
    """Colorize the films. Return 0, or 1 where some of several failed; CommandError and PictureError for the rest."""
    skipped: list[str] = []
    tasks, codecs, several = _plan(options, skipped)
    rank, processes = get_rank()
    options.quiet = options.quiet or rank > 0  # what they see of a film is the same
    references = [read_picture(path) for path in options.reference]
    masks = [read_picture(path) for path in options.masks]

    from .session import encode_all, load_network, print_note, report_failures

    for note in skipped:
        print_note(note, options.quiet)
    for picture in [*references, *masks]:
        for note in picture.notes:
            print_note(f"{picture.path}: {note}", options.quiet)
    team = None
    if processes > 1:
        from .team import Team

        team = Team(rank, processes)
    net = load_network(options)
    reference = encode_all(net, references, masks, options.working_size)
    failures: list[str] = []
    for number, (task, codec) in enumerate(zip(tasks, codecs, strict=True)):
        alone = contextlib.nullcontext()
        try:
            with alone if team is None else team.share(number, task.target.parent) as share:
                if several:
                    with explain_os_error():
                        check_place(task.target, options.force)
                _one(net, reference, task, codec, options, share)
        except (CommandError, FilmError) as error:
            if not several:
                raise CommandError(str(error)) from error
            failures.append(str(error))
    return report_failures(failures, len(tasks), "films")


def _plan(options: argparse.Namespace, notes: list[str]) -> tuple[list[Task], list[Codec], bool]:
    """Return the films with their results, how each is encoded, and whether there are several. CommandError as `plan`."""

    def name_result(path: Path, mark: str) -> str:
        same = path.suffix.lower() in CONTAINERS and options.codec != "ffv1"
        return path.stem + mark + (path.suffix if same else ".mkv")

    with explain_os_error():
        tasks, several = plan(
            options.inputs,
            options.output,
            kind=Kind("film", ENDINGS, CONTAINERS, name_result, check_place),
            recursive=options.recursive,
            references=[*options.reference, *options.masks],
            force=options.force,
            notes=notes,
        )
    for task in tasks if several else []:
        if not is_film(task.source):
            raise CommandError(f"{task.source}: is no film, and films are not mixed with others")
    try:
        codecs = [choose_codec(task.target, options.codec, options.crf) for task in tasks]
    except FilmError as error:
        raise CommandError(str(error)) from error
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise CommandError("films need PyAV: pip install 'scsnet[video]'") from error
    return tasks, codecs, several


def _one(
    net: SCSNet,
    reference: ReferenceFeatures | None,
    task: Task,
    codec: Codec,
    options: argparse.Namespace,
    share: Share | None,
) -> None:
    """Colorize one film, or of one that is shared the shots of this process."""
    from ..films.read import FilmReader
    from .frames import FrameColorizer
    from .session import explain_out_of_memory, print_result

    with FilmReader(task.source, options.start, options.stop) as film:
        size = _choose_size(net, film, task, codec, options)
        pixels = codec.choose_pixels(film.deep)
        colorizer = FrameColorizer(net, size, pixels, reference, options)
        begin = time.perf_counter()

        def paint(rgb: np.ndarray) -> av.VideoFrame:
            colorizer.look(rgb)
            return colorizer.color()

        with explain_out_of_memory(str(task.source)), _explain_writing(create_folder(task.target)):
            if share is None:
                count = _write_film(film, task, size, codec, paint, options)
            else:
                count = _share_film(film, task, codec, colorizer, share, options)
        seconds = time.perf_counter() - begin
    height, width = size
    print_result(
        f"{task.target}: {width} x {height}, {count} frames, {count / seconds:.2f} per second",
        options.quiet,
    )


def _choose_size(
    net: SCSNet, film: FilmReader, task: Task, codec: Codec, options: argparse.Namespace
) -> tuple[int, int]:
    """Return height and width of the result; CommandError where the network or the codec cannot make it."""
    from ..films.write import round_to_even
    from .session import check_head, choose_output_size, print_note

    asked = choose_output_size(task.source, (film.height, film.width), options, 1.0)
    check_head(net, (film.height, film.width), asked, options)
    size = round_to_even(codec, asked)
    if size != asked:
        print_note(
            f"{task.source}: {asked[1]} x {asked[0]} becomes {size[1]} x {size[0]}: this codec needs even sides",
            options.quiet,
        )
    return size


def _share_film(
    film: FilmReader,
    task: Task,
    codec: Codec,
    colorizer: FrameColorizer,
    share: Share,
    options: argparse.Namespace,
) -> int:
    """Colour the shots of this process; process 0 then writes what all have coloured. Return the number of its frames."""
    from ..films.parts import join_parts
    from ..films.read import FilmReader
    from .session import print_note

    dealer = _color_shots(film, colorizer, share, options)
    if share.rank > 0:
        share.hand_in(dealer.frames[share.rank])
        return 0
    if dealer.shots == 1:
        print_note(f"{task.source}: has one shot, which one process colours", options.quiet)
    pictures = join_parts(
        share.gather(lambda line: print_note(f"{task.source}: {line}", options.quiet))
    )
    with FilmReader(task.source, options.start, options.stop) as again:
        count = _write_film(again, task, colorizer.size, codec, lambda _: next(pictures), options)
    share.end()
    return count


def _color_shots(
    film: FilmReader, colorizer: FrameColorizer, share: Share, options: argparse.Namespace
) -> ShotDealer:
    """Look at all frames, and colour those of this process into its part. Return which process has how many."""
    from ..films.parts import PartWriter, ShotDealer
    from ..films.read import Frame
    from .session import Bar

    dealer = ShotDealer(share.processes)
    with (
        share.part.open("xb") as file,
        PartWriter(file, colorizer.size, colorizer.pixels) as part,
        Bar(film.path.name, options.quiet, unit="frame") as bar,
    ):
        progress = bar.phase()
        for item in film:
            if isinstance(item, Frame) and item.rgb is not None:
                number = sum(dealer.frames)
                if dealer.deal(colorizer.look(item.rgb)) == share.rank:
                    part.write(colorizer.color(), number)
                progress(number + 1, max(number + 1, film.count or 0))
    return dealer


def _write_film(
    film: FilmReader,
    task: Task,
    size: tuple[int, int],
    codec: Codec,
    paint: Painter,
    options: argparse.Namespace,
) -> int:
    """Write the result and print what is to be said of the film; return the number of frames."""
    from ..films.write import FilmWriter
    from .session import print_note

    with (
        open_atomic(task.target) as file,
        FilmWriter(file, task.target, film, size, codec) as writer,
    ):
        count = _write_frames(film, writer, paint, options)
    for note in [*film.notes, *writer.notes]:
        print_note(f"{task.source}: {note}", options.quiet)
    return count


def _write_frames(
    film: FilmReader, writer: FilmWriter, paint: Painter, options: argparse.Namespace
) -> int:
    """Paint and write all frames, copy the rest; return the number of frames. A damaged one is shown as the one before."""
    from ..films.read import Frame
    from .session import Bar, print_note

    count = damaged = 0
    colored: av.VideoFrame | None = None
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
                colored = paint(item.rgb)
            if colored is not None:
                writer.write(colored, item)
                count += 1
                progress(count, max(count, film.count or 0))
    if damaged > _NAMED:
        print_note(f"{film.path}: {damaged} frames in all are damaged")
    return count


@contextlib.contextmanager
def _explain_writing(target: Path) -> Iterator[None]:
    """Turn what the disk or the encoder refuses into a CommandError."""
    import av

    try:
        yield
    except (OSError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CommandError(f"{target}: cannot be written: {reason}") from error
