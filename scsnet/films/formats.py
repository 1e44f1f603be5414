"""Which files are films, and how results are written. Neither torch nor PyAV here."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ENDINGS = frozenset(
    [
        ".3g2",
        ".3gp",
        ".asf",
        ".avi",
        ".divx",
        ".dv",
        ".f4v",
        ".flv",
        ".m2ts",
        ".m2v",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".nut",
        ".ogm",
        ".ogv",
        ".qt",
        ".rm",
        ".rmvb",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
        ".y4m",
    ]
)
"""Endings of what is taken for a film; any file is, if the result's ending is one of `CONTAINERS`."""
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""FFmpeg's names of the containers that are written, by ending."""


class FilmError(Exception):
    """What is wrong with a film, in one line."""


class Codec(NamedTuple):
    """How a result is encoded."""

    encoder: str
    pixels: str
    """Pixel format of 8 bits."""
    deep_pixels: str
    """Pixel format for films of more than 8 bits."""
    crf: int | None
    """Default quality, lower is better; None: lossless."""
    largest_crf: int = 51

    def choose_pixels(self, deep: bool) -> str:
        """Return the pixel format for a film, `deep` if it has more than 8 bits."""
        return self.deep_pixels if deep else self.pixels


CODECS = {
    "h264": Codec("libx264", "yuv420p", "yuv420p", 18),  # few devices play 10 bits in H.264
    "h265": Codec("libx265", "yuv420p", "yuv420p10le", 20),
    "ffv1": Codec("ffv1", "yuv444p", "yuv444p10le", None),
}


def choose_codec(path: Path, name: str | None, crf: int | None) -> Codec:
    """Return the codec for a result, H.264 for None. Raises FilmError for what does not fit together."""
    ending = path.suffix.lower()
    if ending not in CONTAINERS:
        raise FilmError(f"{path}: the ending of a film must be one of {', '.join(CONTAINERS)}")
    codec = CODECS[name or "h264"]
    if name == "ffv1" and ending != ".mkv":
        raise FilmError(f"{path}: ffv1 is written to .mkv only")
    if crf is None:
        return codec
    if codec.crf is None:
        raise FilmError(f"{name} is lossless and takes no crf")
    if crf > codec.largest_crf:
        raise FilmError(f"crf must be 0 to {codec.largest_crf}, got {crf}")
    return codec._replace(crf=crf)


def is_film(path: str | Path) -> bool:
    """Return whether the ending is a film's."""
    return Path(path).suffix.lower() in ENDINGS


def format_time(seconds: float) -> str:
    """Return h:mm:ss.mmm."""
    milliseconds = round(max(seconds, 0.0) * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest / 1000:06.3f}"
