"""A film in parts: which process colours which shot, and its frames, stored without loss until all are there."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.video.frame import PictureType

from .formats import FilmError
from .write import PictureEncoder

_UNIT = Fraction(1, 1000)  # of Matroska's times; frame n is stored at n units


class ShotDealer:
    """Deals the shots of a film: each to the process that has the fewest frames so far."""

    def __init__(self, processes: int) -> None:
        self.frames = [0] * processes
        self.shots = 0
        self._owner = 0

    def deal(self, begins: bool) -> int:
        """Return the process that colours the next frame; `begins`: a shot begins with it."""
        if begins:
            self._owner = self.frames.index(min(self.frames))
            self.shots += 1
        self.frames[self._owner] += 1
        return self._owner


class PartWriter(PictureEncoder):
    """Writes numbered frames of (height, width) and one pixel format to `file`: FFV1 in Matroska."""

    def __init__(self, file: BinaryIO, size: tuple[int, int], pixels: str) -> None:
        self.container = av.open(file, "w", format="matroska")
        self.stream = self.container.add_stream("ffv1")
        self.stream.height, self.stream.width = size
        self.stream.pix_fmt = pixels
        self.stream.time_base = self.stream.codec_context.time_base = _UNIT

    def write(self, picture: Any, number: int) -> None:
        """Store a picture of `to_planes`."""
        picture.pts, picture.time_base = number, _UNIT
        self.encode(picture)


def join_parts(paths: Iterable[Path]) -> Iterator[av.VideoFrame]:
    """Yield the frames of all parts in the order of their numbers, which are 0, 1, 2 and so on.

    Raises FilmError where one is missing.
    """
    frames = heapq.merge(*map(_read_part, paths), key=lambda frame: frame.pts)
    for number, frame in enumerate(frames):
        if frame.pts != number:
            break
        yield frame
    raise FilmError("the processes found different cuts: they must run on machines of one kind")


def _read_part(path: Path) -> Iterator[Any]:
    """Yield the frames of a part, with their numbers as time stamps."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            # All frames of FFV1 are key frames, and an encoder would keep them so.
            frame.pict_type = PictureType.NONE
            yield frame
