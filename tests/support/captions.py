"""Captions of every kind, and a reader of pictures with 16 bits per channel."""

import pytest

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


def read_deep(path):
    """(H, W, 3 or 4) uint16 of a PNG or TIFF with 16 bits per channel, decoded by FFmpeg: Pillow reads 8 bits."""
    av = pytest.importorskip("av", reason="needs PyAV")
    with av.open(str(path)) as file:
        samples = next(file.decode(video=0)).to_ndarray()
    assert samples.dtype == "uint16"
    return samples
