"""Films out: frames encoded, sound and subtitles copied."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import av
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc, Interpolation

from .formats import CONTAINERS, Codec, FilmError
from .read import FilmReader, Frame

if TYPE_CHECKING:  # typing has it from Python 3.11 on
    from typing_extensions import Self

_OF_THE_FILE = ("major_brand", "minor_version", "compatible_brands", "encoder")
BT709 = 1  # H.273, and swscale
_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
_NEAR = 0.01  # pixel aspects that differ less than this are the same: sizes are rounded


def fit_pixel_aspect(film: FilmReader, size: tuple[int, int]) -> Fraction:
    """Return the pixel aspect at which a result of (height, width) has the shape of the film on the screen."""
    height, width = size
    exact = film.pixel_aspect * Fraction(film.width * height, film.height * width)
    for aspect in (film.pixel_aspect, Fraction(1)):
        if abs(exact / aspect - 1) < _NEAR:
            return aspect
    return exact.limit_denominator(1000)


def round_to_even(codec: Codec, size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width), even where the codec halves the resolution of colours."""
    if "420" not in codec.pixels:
        return size
    return max(2, size[0] + size[0] % 2), max(2, size[1] + size[1] % 2)


def to_planes(rgb: np.ndarray, pixels: str) -> av.VideoFrame:
    """Convert a picture (H, W, 3), uint8 or uint16, to a pixel format, in BT.709 of limited range."""
    name = "rgb24" if rgb.dtype == np.uint8 else "rgb48le"
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format=name)
    return picture.reformat(
        format=pixels,
        dst_colorspace=BT709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=_EXACT,
    )


class PictureEncoder:
    """Base of writers: a container with one stream of pictures.

    Leaving the context encodes what is left and closes the container, unless by an error.
    """

    container: Any
    stream: Any

    def encode(self, picture: Any) -> None:
        """Encode a picture, None for the end, and write the packets that are ready."""
        self.container.mux(self.stream.encode(picture))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.encode(None)
            self.container.close()


class FilmWriter(PictureEncoder):
    """Writes a result of (height, width) with the time stamps, sound, subtitles, chapters and metadata of `film`.

    `target` is its name; the bytes go to `file`. Raises FilmError for an encoder that this PyAV lacks, OSError and av.FFmpegError for what the disk refuses.
    """

    def __init__(
        self, file: BinaryIO, target: Path, film: FilmReader, size: tuple[int, int], codec: Codec
    ) -> None:
        self.film = film
        self.notes: list[str] = []
        kind = CONTAINERS[target.suffix.lower()]
        self.container = av.open(file, "w", format=kind)
        words = film.container.metadata.items()
        self.container.metadata.update({k: v for k, v in words if k.lower() not in _OF_THE_FILE})
        self.stream = self._add_picture(size, codec)
        self._last: int | None = None
        self._copies: dict[int, Any] = {}
        for stream in film.others:
            self._add_copy(stream, target)
        self._set_chapters()

    def _add_picture(self, size: tuple[int, int], codec: Codec) -> Any:
        options = {} if codec.crf is None else {"crf": str(codec.crf)}
        if codec.encoder == "libx265":
            options["x265-params"] = "log-level=none"
        try:
            stream = self.container.add_stream(codec.encoder, self.film.rate, options)
        except (ValueError, av.FFmpegError) as error:
            raise FilmError(f"this PyAV has no encoder {codec.encoder}") from error
        stream.height, stream.width = size
        stream.pix_fmt = codec.choose_pixels(self.film.deep)
        stream.time_base = self.film.time_base
        context = stream.codec_context
        context.time_base = self.film.time_base
        context.sample_aspect_ratio = fit_pixel_aspect(self.film, size)
        context.colorspace = BT709
        context.color_range = ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        context.flags |= Flags.frame_duration
        if codec.encoder == "libx265" and self.container.format.name != "matroska":
            context.codec_tag = "hvc1"  # the only one that Apple's players know
        stream.metadata.update(self.film.video.metadata)
        stream.disposition = self.film.video.disposition
        return stream

    def _add_copy(self, stream: Any, target: Path) -> None:
        context = stream.codec_context
        name = None if context is None else context.codec.canonical_name
        if name not in self.container.supported_codecs:
            self.notes.append(
                f"{stream.type} ({name}) has no place in {target.suffix} and is left out"
            )
            return
        copy = self.container.add_stream_from_template(stream)
        copy.metadata.update(stream.metadata)
        copy.disposition = stream.disposition
        self._copies[stream.index] = copy

    def _set_chapters(self) -> None:
        chapters = []
        for chapter in self.film.container.chapters():
            assert chapter["time_base"] is not None
            offset = round(self.film.start / chapter["time_base"])
            start, end = max(0, chapter["start"] - offset), chapter["end"] - offset
            if end > 0:
                chapters.append({**chapter, "start": start, "end": end})
        if chapters:
            self.container.set_chapters(chapters)

    def write(self, picture: Any, frame: Frame) -> None:
        """Encode a picture of `to_planes` at the time of `frame`."""
        picture.colorspace, picture.color_range = BT709, ColorRange.MPEG
        picture.color_primaries, picture.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        # Encoders refuse times that do not grow, which only damaged files have.
        pts = frame.pts if self._last is None else max(frame.pts, self._last + 1)
        self._last = picture.pts = pts
        picture.time_base = self.film.time_base
        picture.duration = frame.duration
        self.encode(picture)

    def copy(self, packet: Any) -> None:
        """Write a packet of sound or subtitles."""
        if packet.stream.index in self._copies:
            packet.stream = self._copies[packet.stream.index]
            self.container.mux(packet)
