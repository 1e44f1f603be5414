"""Read and write captions: XMP, IPTC, comments and the texts of PNG. EXIF is in exif.py."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image, PngImagePlugin

from .xmp import XMP_ERRORS, remove_places, update_xmp

_IPTC_RESOURCE = 1028  # of Photoshop's block, where JPEG has IPTC
_TIFF_XMP, _TIFF_IPTC = 700, 33723
_JPEG_SEGMENT = 65533
_XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_XMP_MARK, _PHOTOSHOP_MARK = b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0"
_PROFILE = (
    "Raw profile type "  # texts in which ImageMagick and exiftool store what PNG has no chunk for
)
_PNG_XMP, _PNG_IPTC = "XML:com.adobe.xmp", _PROFILE + "iptc"
_PROFILES_READ = (_PROFILE + "exif", _PNG_IPTC, _PROFILE + "xmp")  # the first by Pillow
_IN_LONG = 4  # TIFF type of 32-bit integers, which some programs give to IPTC


@dataclass(frozen=True, kw_only=True)
class Captions:
    """What a file says in words beside EXIF, each as stored."""

    xmp: bytes | None = None
    iptc: bytes | None = None
    """Records of IPTC-IIM."""
    comment: bytes | None = None
    """Of a JPEG or GIF."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Of a PNG, by keyword."""

    def without_places(self, notes: list[str]) -> Captions:
        """Return the captions without regions, such as named faces, which lie elsewhere in a turned or cropped picture."""
        try:
            packet = None if self.xmp is None else remove_places(self.xmp)
        except XMP_ERRORS:  # said when it is written
            packet = None
        if packet is None:
            return self
        notes.append("the regions in its XMP (faces) lie elsewhere in the result and are left out")
        return replace(self, xmp=packet)


def read_captions(image: Image.Image, notes: list[str]) -> Captions:
    """Read the captions of a decoded picture; what is left out is added to `notes`."""
    info = image.info
    xmp, comment = info.get("xmp"), info.get("comment")
    segments = getattr(image, "applist", ())  # of a JPEG, which may have several comments
    comment = b"\n".join(data for name, data in segments if name == "COM") or comment
    texts = dict(image.text) if isinstance(image, PngImagePlugin.PngImageFile) else {}
    texts.pop(_PNG_XMP, None)
    iptc = _find_iptc(image, texts)
    if xmp is None and _PROFILE + "xmp" in texts:
        xmp = _decode_profile(texts[_PROFILE + "xmp"])
    profiles = [name for name in texts if name.startswith(_PROFILE)]
    unread = [name for name in profiles if name not in _PROFILES_READ]
    if unread:
        notes.append("PNG texts that are not understood are left out: " + ", ".join(unread))
    if any(data.startswith(_XMP_EXTENSION) for name, data in segments if name == "APP1"):
        notes.append("the part of its XMP beyond 64 KB is left out")
    return Captions(
        xmp=xmp if isinstance(xmp, bytes) and xmp else None,
        iptc=iptc,
        comment=comment if isinstance(comment, bytes) and comment else None,
        texts={name: text for name, text in texts.items() if name not in profiles},
    )


def _find_iptc(image: Image.Image, texts: Mapping[str, str]) -> bytes | None:
    data: Any = None
    if _PNG_IPTC in texts:
        data = _decode_profile(texts[_PNG_IPTC])
        data = _read_resource(data) if data is not None and data.startswith(b"8BIM") else data
    elif isinstance(image.info.get("photoshop"), dict):
        data = image.info["photoshop"].get(_IPTC_RESOURCE)
    elif image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        data = tags.get(_TIFF_IPTC)
        if tags.tagtype.get(_TIFF_IPTC) == _IN_LONG:
            numbers = data if isinstance(data, tuple) else (data,)
            order = "<" if tags.prefix == b"II" else ">"
            data = struct.pack(f"{order}{len(numbers)}I", *numbers)
    return data if isinstance(data, bytes) and data else None


def _decode_profile(text: str) -> bytes | None:
    """Return the bytes of a raw profile, hexadecimal text after a name and a length; None if it is not that."""
    _, _, body = text.strip().partition("\n")
    _, _, digits = body.partition("\n")
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return None


def _encode_profile(name: str, data: bytes) -> str:
    return f"\n{name}\n{len(data):8}\n{data.hex()}\n"


def _read_resource(data: bytes) -> bytes | None:
    """Return IPTC of a Photoshop block whose first resource it is."""
    if struct.unpack_from(">H", data, 4) != (_IPTC_RESOURCE,) or len(data) < 12:
        return None
    start = 6 + (data[6] + 2) // 2 * 2  # behind a name padded to an even length
    (length,) = struct.unpack_from(">I", data, start)
    return data[start + 4 : start + 4 + length]


def _resource(iptc: bytes) -> bytes:
    """Return IPTC as a Photoshop block."""
    return (
        struct.pack(">4sHHI", b"8BIM", _IPTC_RESOURCE, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    )


def caption_options(
    captions: Captions, kind: str, size: tuple[int, int], dpi: tuple[float, float] | None
) -> tuple[dict[str, Any], list[str]]:
    """Return options of Pillow's save (of TIFF: "tags") that write the captions of a picture of (width, height)
    pixels, and notes on what this format cannot keep."""
    lost: list[str] = []
    notes: list[str] = []
    xmp = captions.xmp
    if xmp is not None:
        try:
            xmp = update_xmp(xmp, size, dpi, f"image/{kind.lower()}")
        except XMP_ERRORS as error:
            notes.append(f"its XMP cannot be read and is left out ({error})")
            xmp = None
    write = {"JPEG": _jpeg, "PNG": _png, "TIFF": _tiff, "WEBP": _webp}[kind]
    options = write(replace(captions, xmp=xmp), lost)
    if lost:
        notes.append(f"a {kind} cannot keep {', '.join(lost)}: left out")
    return options, notes


def _jpeg(captions: Captions, lost: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    extra = b""
    segments = {
        "its XMP": (b"\xff\xe1", _XMP_MARK, captions.xmp),
        "its IPTC": (b"\xff\xed", _PHOTOSHOP_MARK, captions.iptc and _resource(captions.iptc)),
    }
    for name, (marker, mark, data) in segments.items():
        if data and len(mark + data) > _JPEG_SEGMENT:
            lost.append(f"{name} of more than 64 KB")
        elif data:
            extra += marker + struct.pack(">H", 2 + len(mark + data)) + mark + data
    if extra:
        options["extra"] = extra
    if captions.comment and len(captions.comment) > _JPEG_SEGMENT:
        lost.append("its comment of more than 64 KB")
    elif captions.comment:
        options["comment"] = captions.comment
    _lose_texts(captions, lost)
    return options


def _png(captions: Captions, lost: list[str]) -> dict[str, Any]:
    info = PngImagePlugin.PngInfo()
    for name, text in captions.texts.items():
        info.add_text(name, text, zip=len(text) > 1000)
    if captions.comment:
        info.add_text("Comment", captions.comment.decode(errors="replace"))
    if captions.iptc:
        info.add_text(_PNG_IPTC, _encode_profile("iptc", _resource(captions.iptc)), zip=True)
    if captions.xmp:
        info.add_itxt(_PNG_XMP, captions.xmp.decode())
    return {"pnginfo": info} if info.chunks else {}


def _tiff(captions: Captions, lost: list[str]) -> dict[str, Any]:
    if captions.comment:
        lost.append("its comment")
    _lose_texts(captions, lost)
    tags = {_TIFF_XMP: captions.xmp, _TIFF_IPTC: captions.iptc}
    return {"tags": {tag: data for tag, data in tags.items() if data}}


def _webp(captions: Captions, lost: list[str]) -> dict[str, Any]:
    lost += [
        name
        for name, data in (("its IPTC", captions.iptc), ("its comment", captions.comment))
        if data
    ]
    _lose_texts(captions, lost)
    return {"xmp": captions.xmp} if captions.xmp else {}


def _lose_texts(captions: Captions, lost: list[str]) -> None:
    if captions.texts:
        lost.append(f"its PNG texts ({', '.join(captions.texts)})")
