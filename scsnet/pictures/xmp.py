"""Correct what an XMP packet says of the file and its pixels; titles, captions, names and the rest stay as they are."""

from __future__ import annotations

import xml.dom.minidom as dom
from collections.abc import Iterator
from xml.parsers.expat import ExpatError

_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_XMP, _PHOTOSHOP = "http://ns.adobe.com/xap/1.0/", "http://ns.adobe.com/photoshop/1.0/"
_SHAPE = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_REGIONS = "http://www.metadataworkinggroup.com/schemas/regions/"

# What is wrong in the result: the layout of the file, a thumbnail, a place in pixels, the profile.
_REMOVED = {
    *((_TIFF, name) for name in ("BitsPerSample", "Compression", "PhotometricInterpretation",
                                 "PlanarConfiguration", "SamplesPerPixel", "YCbCrPositioning",
                                 "YCbCrSubSampling", "NativeDigest")),
    *((_EXIF, name) for name in ("SubjectArea", "SubjectLocation", "CompressedBitsPerPixel",
                                 "FocalPlaneXResolution", "FocalPlaneYResolution", "NativeDigest")),
    (_XMP, "Thumbnails"),
    (_PHOTOSHOP, "ICCProfile"),
    ("http://cipa.jp/exif/1.0/", "InteroperabilityIndex"),
    ("http://ns.adobe.com/xmp/note/", "HasExtendedXMP"),
}  # fmt: skip
# Panoramas, depth and gain maps, motion photos: pixels of the old picture, or data behind it.
_REMOVED_NAMESPACES = (
    "http://ns.google.com/photos/1.0/",
    "http://ns.adobe.com/hdr-gain-map/1.0/",
)
# Faces and other regions, as fractions of the stored picture.
_PLACES = {
    (_REGIONS, "Regions"),
    ("http://ns.microsoft.com/photo/1.2/", "RegionInfo"),
    ("http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "ImageRegion"),
}
XMP_ERRORS = (ExpatError, ValueError, LookupError, RecursionError)
"""Exceptions for a packet that is not well-formed XML."""


def update_xmp(
    packet: bytes, size: tuple[int, int], dpi: tuple[float, float] | None, mime: str
) -> bytes:
    """Return the packet for an upright sRGB picture of (width, height) pixels. XMP_ERRORS if it is no XML."""
    width, height = map(str, size)
    values: dict[tuple[str | None, str], str] = {
        (_TIFF, "Orientation"): "1",
        (_TIFF, "ImageWidth"): width,
        (_TIFF, "ImageLength"): height,
        (_EXIF, "PixelXDimension"): width,
        (_EXIF, "PixelYDimension"): height,
        (_EXIF, "ColorSpace"): "1",
        (_PHOTOSHOP, "ColorMode"): "3",  # RGB
        ("http://purl.org/dc/elements/1.1/", "format"): mime,
    }
    if dpi is not None:
        values[_TIFF, "XResolution"] = f"{round(dpi[0] * 100)}/100"
        values[_TIFF, "YResolution"] = f"{round(dpi[1] * 100)}/100"
        values[_TIFF, "ResolutionUnit"] = "2"
    document = _parse(packet)
    for node in _nodes(document):
        name = node.namespaceURI, node.localName
        if name in _REMOVED or str(name[0]).startswith(_REMOVED_NAMESPACES):
            _remove(node)
        elif name in values:
            _set(node, values[name])
        elif name == (_REGIONS, "AppliedToDimensions") and isinstance(node, dom.Element):
            for side, value in (("w", width), ("h", height)):
                for inner in [
                    node.getAttributeNodeNS(_SHAPE, side),
                    *node.getElementsByTagNameNS(_SHAPE, side),
                ]:
                    if inner is not None:
                        _set(inner, value)
    return document.toxml("utf-8").partition(b"?>")[2].lstrip()


def remove_places(packet: bytes) -> bytes | None:
    """Return the packet without regions, or None if it has none. XMP_ERRORS if it is no XML."""
    document = _parse(packet)
    found = [node for node in _nodes(document) if (node.namespaceURI, node.localName) in _PLACES]
    for node in found:
        _remove(node)
    return document.toxml("utf-8") if found else None


def _parse(packet: bytes) -> dom.Document:
    return dom.parseString(packet.strip(b"\0 \t\r\n"))


def _nodes(document: dom.Document) -> Iterator[dom.Element | dom.Attr]:
    """Yield all elements and attributes, in either of which a property is stored."""
    for element in document.getElementsByTagName("*"):
        yield element
        yield from list(element.attributes.values())


def _set(node: dom.Element | dom.Attr, value: str) -> None:
    if isinstance(node, dom.Attr):
        node.value = value
        return
    while node.firstChild is not None:
        node.removeChild(node.firstChild)
    assert node.ownerDocument is not None
    node.appendChild(node.ownerDocument.createTextNode(value))


def _remove(node: dom.Element | dom.Attr) -> None:
    if isinstance(node, dom.Attr):
        if node.ownerElement is not None:
            node.ownerElement.removeAttributeNode(node)
    elif node.parentNode is not None:
        node.parentNode.removeChild(node)
