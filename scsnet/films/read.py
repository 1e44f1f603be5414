"""Films in: frames as upright sRGB pictures with their time stamps, and the packets of sound and subtitles as they are."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import ceil, inf
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, ColorTrc, Interpolation

from .formats import FilmError

SMALL = 720  # lines: films of fewer that do not tell their colour matrix have BT.601, others BT.709, as in players
_SLACK = 1e-4  # seconds: times are rounded to the units of the file
LAG = 10.0  # seconds: sound is stored at most so much later than the pictures that belong to it
# H.273 matrix -> that of swscale
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_EXACT = (
    Interpolation.BILINEAR
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.FULL_CHR_H_INT
)
_LIMITED_GRAY = ("h264", "hevc")  # whose gray has 16 for black unless they say otherwise


@dataclass(frozen=True)
class Frame:
    """One picture of a film."""

    pts: int
    """Time in units of the film's time base, from the start of what is read."""
    duration: int
    """In the same units; 0 where the film does not say."""
    rgb: np.ndarray | None
    """(H, W, 3), uint8 or uint16, upright; None where the frame is damaged."""


class FilmReader:
    """A film, or what lies between two times of it in seconds.

    Iterating yields each `Frame` and, between them, the packets of the other streams, with the same shift of time. Raises
    FilmError, here and later, for what cannot be read.
    """

    def __init__(self, path: Path, start: float | None = None, stop: float | None = None) -> None:
        self.path = path
        self.notes: list[str] = []
        try:
            self.container = av.open(str(path), metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            raise FilmError(f"{path}: cannot be read as a film: {error.strerror}") from error
        try:
            self._prepare(start, stop)
        except BaseException:
            self.container.close()
            raise

    def _prepare(self, start: float | None, stop: float | None) -> None:
        videos = [
            stream
            for stream in self.container.streams.video
            if not stream.disposition & av.stream.Disposition.attached_pic
        ]
        if not videos:
            raise FilmError(f"{self.path}: has no moving picture")
        self.video = video = videos[0]
        if len(videos) > 1:
            self.notes.append(f"has {len(videos)} moving pictures; the first one is taken")
        self.others = [s for s in self.container.streams if s.type in ("audio", "subtitle")]
        assert video.time_base is not None
        self.time_base: Fraction = video.time_base
        self.rate: Fraction = video.average_rate or video.guessed_rate or Fraction(25)
        self.seconds = self._find_seconds()
        begin = start or 0.0
        if self.seconds is not None and begin >= self.seconds:
            raise FilmError(f"{self.path}: is {self.seconds:.3f} s long, nothing is at {begin:g} s")
        origin = max(0, self.container.start_time or 0) / av.time_base
        self.start = begin
        self._first, self._last = origin + begin, inf if stop is None else origin + stop
        if start:
            with contextlib.suppress(av.FFmpegError):  # without an index it is read from its start
                self.container.seek(int(self._first * av.time_base), backward=True)
        self._size: tuple[int, int] | None = None  # of the first frame, which others are brought to
        self._lost: list[int] = []  # a heap: times of frames that could not be decoded
        self._next = 0
        items = self._read()
        before: list[av.Packet[Any] | Frame] = []
        for item in items:
            before.append(item)
            if isinstance(item, Frame) and item.rgb is not None:
                self.height, self.width = item.rgb.shape[:2]
                self._items = chain(before, items)
                return
        raise FilmError(f"{self.path}: holds no picture that can be read")

    def _find_seconds(self) -> float | None:
        if self.video.duration is not None:
            return float(self.video.duration * self.time_base)
        if self.container.duration is not None:
            return self.container.duration / av.time_base
        return None

    @property
    def count(self) -> int | None:
        """Estimate the number of frames that will be read; None where the film does not say."""
        whole = self.video.frames or None
        seconds = self.seconds
        if self.start == 0 and self._last == inf and whole is not None:
            return whole
        length = self._last - self._first
        if seconds is not None:
            length = min(length, seconds - self.start)
        return None if length == inf else max(1, ceil(length * self.rate))

    def to_seconds(self, pts: int) -> float:
        """Return the time of a frame in the film."""
        return float(pts * self.time_base) + self.start

    def __enter__(self) -> FilmReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.container.close()

    def __iter__(self) -> Iterator[av.Packet[Any] | Frame]:
        return iter(self._items)

    def _read(self) -> Iterator[av.Packet[Any] | Frame]:
        finished = False
        for packet in self._demux():
            if packet.dts is not None and packet.dts * packet.time_base > self._last + LAG:
                return
            if packet.stream.index != self.video.index:
                stamp = packet.dts if packet.pts is None else packet.pts
                if stamp is not None and self._is_between(float(stamp * packet.time_base)):
                    yield self._shift(packet)
                continue
            for frame in [] if finished else self._decode(packet):
                time = float(frame.pts * self.time_base)
                finished = time >= self._last - _SLACK
                if self._is_between(time):
                    offset = round(self._first / self.time_base)
                    yield Frame(frame.pts - offset, frame.duration, frame.rgb)
            if finished and not self.others:
                return

    def _is_between(self, time: float) -> bool:
        """Return whether a time of the file is among those asked for; without a first one, whatever comes first."""
        return (self.start == 0 or time >= self._first - _SLACK) and time < self._last - _SLACK

    def _demux(self) -> Iterator[av.Packet[Any]]:
        try:
            yield from self.container.demux(self.video, *self.others)
        except (av.FFmpegError, OSError) as error:
            self.notes.append(f"cannot be read to its end: {error.strerror}")

    def _shift(self, packet: av.Packet[Any]) -> av.Packet[Any]:
        offset = round(self._first / packet.time_base)
        packet.dts = None if packet.dts is None else packet.dts - offset
        packet.pts = None if packet.pts is None else packet.pts - offset
        return packet

    def _decode(self, packet: av.Packet[Any]) -> Iterator[Frame]:
        """Yield frames in the order of their time, with the times of the film itself."""
        try:
            frames: list[Any] = list(packet.decode())
        except av.FFmpegError:
            frames = []
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None:
                heapq.heappush(self._lost, time)
        for frame in frames:
            pts = self._next if frame.pts is None else frame.pts
            while self._lost and self._lost[0] < pts:
                yield Frame(heapq.heappop(self._lost), 0, None)
            duration = frame.duration or 0
            self._next = pts + (duration or round(1 / self.rate / self.time_base))
            if frame.is_corrupt:
                yield Frame(pts, duration, None)
            else:
                yield Frame(pts, duration, self._to_rgb(frame))
        if packet.dts is None:  # the end
            while self._lost:
                yield Frame(heapq.heappop(self._lost), 0, None)

    def _to_rgb(self, frame: Any) -> np.ndarray:
        if self._size is None:
            self._look(frame)
        limited = frame.color_range == ColorRange.MPEG
        name, matrix = frame.format.name, frame.colorspace
        assert self._size is not None
        width, height = self._size
        if name.startswith("gray"):
            if frame.color_range == ColorRange.UNSPECIFIED:
                limited = self.video.codec_context.name in _LIMITED_GRAY
            # swscale takes all gray for full range
            gray = frame.reformat(width, height, "gray16le" if self.deep else "gray")
            plane = gray.to_ndarray()
            if limited:
                low, span, top = (4096, 56064, 65535) if self.deep else (16, 219, 255)
                stretched = (plane.astype(np.float32) - low) * (top / span)
                plane = stretched.round().clip(0, top).astype(plane.dtype)
            array = plane[..., None].repeat(3, axis=2)
        else:
            if matrix not in _MATRICES:
                matrix = 1 if frame.height >= SMALL else 5
            full = frame.color_range == ColorRange.JPEG or name.startswith("yuvj")
            array = frame.reformat(
                width,
                height,
                "rgb48le" if self.deep else "rgb24",
                src_colorspace=_MATRICES[matrix],
                src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
                dst_color_range=ColorRange.JPEG,
                interpolation=_EXACT,
            ).to_ndarray()
        return np.rot90(array, self._turns)

    def _look(self, frame: Any) -> None:
        """Take what the first frame tells for the whole film."""
        self.deep = max(part.bits for part in frame.format.components) > 8
        self._size = (frame.width, frame.height)
        self._turns = round(frame.rotation / 90) % 4  # counterclockwise, as np.rot90
        aspect = self.video.sample_aspect_ratio or Fraction(1)
        self.pixel_aspect = 1 / aspect if self._turns % 2 else aspect
        if frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67):
            self.notes.append("is HDR, which is read as if it were SDR: convert it before")
        if frame.interlaced_frame:
            self.notes.append("is interlaced: deinterlace it before for better details")
