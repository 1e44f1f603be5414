"""A picture's captions of every kind, and a reader of 16-bit PNG that shares nothing with the writer."""

import struct
import zlib

import numpy as np

from scsnet.pictures.metadata import Captions

IPTC = b"\x1c\x01Z\0\x03\x1b%G\x1c\x02x\0\x0cOma in K\xc3\xb6ln"
XMP = """<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?>
<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>
<rdf:Description rdf:about='' xmlns:dc='http://purl.org/dc/elements/1.1/' xmlns:tiff='http://ns.adobe.com/tiff/1.0/'
 xmlns:exif='http://ns.adobe.com/exif/1.0/' xmlns:xmp='http://ns.adobe.com/xap/1.0/'
 xmlns:mwg-rs='http://www.metadataworkinggroup.com/schemas/regions/' xmlns:stDim='http://ns.adobe.com/xap/1.0/sType/Dimensions#'
 tiff:Orientation='6' tiff:ImageWidth='9'>
<dc:title><rdf:Alt><rdf:li xml:lang='x-default'>Oma in Köln &amp; Bonn</rdf:li></rdf:Alt></dc:title>
<exif:PixelXDimension>9</exif:PixelXDimension><exif:PixelYDimension>6</exif:PixelYDimension>
<xmp:Thumbnails>old</xmp:Thumbnails>
<mwg-rs:Regions rdf:parseType='Resource'><mwg-rs:AppliedToDimensions stDim:w='9' stDim:h='6' stDim:unit='pixel'/>
<mwg-rs:RegionList>Grandma</mwg-rs:RegionList></mwg-rs:Regions>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>""".encode()
CAPTIONS = Captions(xmp=XMP, iptc=IPTC, comment=b"by hand", texts={"Title": "Köln", "Author": "Жизнь"})  # fmt: skip


def read_deep_png(path):
    """(H, W, C) uint16, unfiltered by the words of the standard."""
    data, place, stream = path.read_bytes(), 8, b""
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack_from(">I", data, place + 8 + length)[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            width, height, bits, color = struct.unpack_from(">IIBB", body)
        stream += body if kind == b"IDAT" else b""
        place += 12 + length
    assert bits == 16
    step = {2: 6, 6: 8}[color]
    raw, size = zlib.decompress(stream), width * step
    rows = np.zeros((height + 1, size + step), int)
    for y in range(height):
        line = raw[y * (size + 1) : (y + 1) * (size + 1)]
        assert line[0] == 4
        for x, value in enumerate(line[1:]):
            a, b, c = int(rows[y + 1, x]), int(rows[y, x + step]), int(rows[y, x])
            nearest = min((a, b, c), key=lambda v: abs(v - (a + b - c)))
            rows[y + 1, x + step] = (value + nearest) % 256
    return rows[1:, step:].astype(np.uint8).view(">u2").reshape(height, width, step // 2)
