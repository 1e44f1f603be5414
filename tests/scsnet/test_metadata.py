"""Metadata of pictures: what is kept byte for byte, what is corrected, what is said to be lost."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from captions import CAPTIONS, IPTC, XMP, read_deep_png
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from scsnet.pictures import read_picture, write_picture
from scsnet.pictures.metadata import Captions

BASE = ExifTags.Base
PHOTO = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
DEEP = np.random.default_rng(1).random((6, 9, 3), np.float32)
TEXT = "Großmutter 1941, Café, Жизнь".encode()
exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")


def ask_exiftool(path, *options):
    command = ["exiftool", "-json", "-n", "-a", "-G1", *options, str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]


def exif_of(text):
    """EXIF whose texts are these bytes, in the first and in the Exif directory."""
    exif = Image.Exif()
    place = "x" * len(text)  # replaced after writing: Pillow writes ASCII only
    exif[BASE.ImageDescription] = place
    exif[ExifTags.IFD.Exif] = {int(BASE.LensModel): place, int(BASE.UserComment): b"ASCII\0\0\0hi"}
    return exif.tobytes().replace(place.encode(), text)


@pytest.mark.parametrize("source", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_exif_text_is_kept_byte_for_byte(tmp_path, source, ending):
    path = tmp_path / f"in.{source}"
    if source == "tif":  # Pillow would write ASCII
        picture = read_picture(_saved(tmp_path / "in.jpg", exif=exif_of(TEXT)))
        write_picture(path, PHOTO, tags=picture.tags)
    else:
        _saved(path, exif=exif_of(TEXT))
    picture = read_picture(path)
    out = tmp_path / f"out.{ending}"
    assert write_picture(out, PHOTO, tags=picture.tags) == []
    assert out.read_bytes().count(TEXT + b"\0") == 2


@exiftool
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_exiftool_reads_the_same_before_and_after(tmp_path, ending):
    path = _saved(tmp_path / "in.jpg")
    values = {"IFD0:ImageDescription": "Großmutter 1941, Café", "IFD0:Artist": "José Müller", "IFD0:XPTitle": "Жизнь",
              "ExifIFD:UserComment": "Жизнь", "ExifIFD:LensModel": "Ä", "ExifIFD:ExposureCompensation": -0.5,
              "GPS:GPSLatitude": 50.9, "IPTC:Caption-Abstract": "Oma in Köln", "XMP-dc:Title": "Oma",
              "XMP-dc:Description": "Köln 1941", "XMP-xmp:Rating": 5}  # fmt: skip
    assignments = [f"-{name}={value}" for name, value in values.items()]
    command = ["exiftool", "-charset", "iptc=utf8", "-codedcharacterset=utf8", *assignments, path]
    subprocess.run(command, capture_output=True, check=True)
    before = ask_exiftool(path)
    picture = read_picture(path)
    out = tmp_path / f"out.{ending}"
    notes = write_picture(
        out, PHOTO, tags=picture.tags, captions=picture.captions, dpi=(300, 299.5)
    )
    after = ask_exiftool(out)
    lost = {"IPTC:Caption-Abstract"} if ending == "webp" else set()
    assert notes == (["a WEBP cannot keep its IPTC: left out"] if lost else [])
    assert {name: after[name] for name in values if name not in lost} == {
        name: before[name] for name in values if name not in lost
    }
    assert (after["IFD0:XResolution"], after["IFD0:YResolution"]) == (300, 299.5)
    warnings = [str(value) for value in ask_exiftool(out, "-validate", "-warning").values()]
    assert not any("byte order" in warning or "ExifIFD 0x9286" in warning for warning in warnings)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_captions_are_kept_or_named(tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    notes = write_picture(path, PHOTO, captions=CAPTIONS, dpi=(300, 200))
    lost = {
        "jpg": ["its PNG texts (Title, Author)"],
        "png": [],
        "tif": ["its comment", "its PNG texts (Title, Author)"],
        "webp": ["its IPTC", "its comment", "its PNG texts (Title, Author)"],
    }[ending]
    assert len(notes) == bool(lost)
    assert not lost or ", ".join(lost) in notes[0]
    again = read_picture(path)
    assert again.notes == ()
    assert again.captions.iptc == (None if ending == "webp" else IPTC)
    assert again.captions.comment == (b"by hand" if ending == "jpg" else None)
    expected = {**CAPTIONS.texts, "Comment": "by hand"} if ending == "png" else {}
    assert again.captions.texts == expected
    once_more = tmp_path / f"again.{ending}"
    assert write_picture(once_more, PHOTO, captions=again.captions, dpi=(300, 200)) == []
    assert once_more.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_xmp_says_nothing_false(tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    write_picture(path, PHOTO, captions=Captions(xmp=XMP))
    xmp = read_picture(path).captions.xmp.decode()
    assert "Oma in Köln &amp; Bonn" in xmp
    for part in ('tiff:Orientation="1"', 'tiff:ImageWidth="9"', ">9</exif:PixelX", ">6</exif:PixelY", 'stDim:h="6"', "Grandma",
                 "<?xpacket begin", "<?xpacket end"):  # fmt: skip
        assert part in xmp
    assert "Thumbnails" not in xmp


def test_regions_are_left_out_of_a_turned_picture(tmp_path):
    exif = Image.Exif()
    exif[BASE.Orientation] = 6
    path = _saved(tmp_path / "in.png", exif=exif)
    write_picture(tmp_path / "in.jpg", PHOTO, captions=Captions(xmp=XMP))
    assert "Grandma" in read_picture(tmp_path / "in.jpg").captions.xmp.decode()
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    picture = read_picture(_saved(path, exif=exif, pnginfo=info))
    assert any("regions" in note for note in picture.notes)
    assert b"Grandma" not in picture.captions.xmp
    assert "Oma in Köln" in picture.captions.xmp.decode()


@pytest.mark.parametrize("xmp", [b"no XML", b"<a>" * 5000, XMP[:500], "<a>ä</a>".encode("latin-1")])
def test_broken_xmp_is_said(tmp_path, xmp):
    notes = write_picture(tmp_path / "a.jpg", PHOTO, captions=Captions(xmp=xmp))
    assert len(notes) == 1
    assert "XMP cannot be read" in notes[0]
    assert read_picture(tmp_path / "a.jpg").captions.xmp is None


def test_captions_too_long_for_a_jpeg_are_said(tmp_path):
    xmp = XMP.replace(b"Bonn", b"x" * 70000)
    captions = Captions(xmp=xmp, iptc=IPTC * 4000, comment=b"x" * 70000)
    (note,) = write_picture(tmp_path / "a.jpg", PHOTO, captions=captions)
    assert note.count("64 KB") == 3
    assert write_picture(tmp_path / "a.png", PHOTO, captions=captions) == []
    assert read_picture(tmp_path / "a.png").captions.iptc == IPTC * 4000


def test_all_comments_of_a_jpeg_are_kept(tmp_path):
    path = _saved(tmp_path / "a.jpg", comment=b"one", extra=b"\xff\xfe\0\5two")
    write_picture(tmp_path / "b.jpg", PHOTO, captions=read_picture(path).captions)
    assert set(read_picture(tmp_path / "b.jpg").captions.comment.split()) == {b"one", b"two"}


def test_interoperability_is_that_of_srgb(tmp_path):
    exif = Image.Exif()
    exif[BASE.Make] = "Camera"
    exif[ExifTags.IFD.Exif] = {int(BASE.ColorSpace): 65535, int(ExifTags.IFD.Interop): {1: "R03"}}
    picture = read_picture(_saved(tmp_path / "a.jpg", exif=exif))
    assert picture.notes == ()
    write_picture(tmp_path / "b.jpg", PHOTO, tags=picture.tags)
    details = read_picture(tmp_path / "b.jpg").tags[ExifTags.IFD.Exif]
    assert details[ExifTags.IFD.Interop][1] == "R98"
    assert details[BASE.ColorSpace] == 1


def test_only_a_declared_resolution_counts(tmp_path):
    exif = Image.Exif()
    exif[BASE.XResolution] = exif[BASE.YResolution] = 1.0
    exif[BASE.ResolutionUnit] = 1  # none: an aspect ratio
    assert read_picture(_saved(tmp_path / "a.tif")).dpi is None
    assert read_picture(_saved(tmp_path / "a.jpg", exif=exif)).dpi is None
    assert read_picture(_saved(tmp_path / "b.jpg", dpi=(72, 72))).dpi == (72, 72)
    assert read_picture(_saved(tmp_path / "b.tif", dpi=(96, 72))).dpi == (96, 72)


# 16 bits per channel


@pytest.mark.parametrize("with_alpha", [False, True])
def test_sixteen_bits_are_written_exactly(tmp_path, with_alpha, monkeypatch):
    monkeypatch.setattr("scsnet.pictures.png._BAND_BYTES", 200)  # several bands and strips
    monkeypatch.setattr("scsnet.pictures.tiff._STRIP_BYTES", 200)
    alpha = PHOTO[..., 0] if with_alpha else None
    expected = np.rint(DEEP.astype(np.float64) * 65535)
    options = {"alpha": alpha, "captions": CAPTIONS, "dpi": (300, 300), "tags": {271: "Ä"}}
    for name in ("a.png", "a.tif"):
        write_picture(tmp_path / name, DEEP, **options)
        write_picture(tmp_path / f"shallow-{name}", PHOTO, **options)
        deep, shallow = read_picture(tmp_path / name), read_picture(tmp_path / f"shallow-{name}")
        assert (deep.tags, deep.captions, deep.dpi) == (
            shallow.tags,
            shallow.captions,
            shallow.dpi,
        )
        with Image.open(tmp_path / name) as one, Image.open(tmp_path / f"shallow-{name}") as other:
            assert one.info["icc_profile"] == other.info["icc_profile"]
    samples = [read_deep_png(tmp_path / "a.png")]
    tifffile = pytest.importorskip("tifffile", reason="reads 16-bit TIFF, Pillow does not")
    samples.append(tifffile.imread(tmp_path / "a.tif"))
    for found in samples:
        assert np.abs(found[..., :3] - expected).max() <= 1
        assert np.mean(found[..., :3] == expected) > 0.99  # float32 * 65535, rounded
        assert not with_alpha or (found[..., 3] == alpha.astype(int) * 257).all()


@pytest.mark.skipif(shutil.which("convert") is None, reason="needs ImageMagick")
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_imagemagick_reads_sixteen_bits(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    write_picture(path, DEEP, alpha=PHOTO[..., 0])
    command = ["convert", path, "-depth", "16", "-endian", "LSB", "rgba:-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    found = np.frombuffer(raw, "<u2").reshape(6, 9, 4)
    assert np.abs(found[..., :3] - np.rint(DEEP * 65535)).max() <= 1
    assert (found[..., 3] == PHOTO[..., 0].astype(int) * 257).all()


def _saved(path, **options):
    Image.fromarray(PHOTO).save(path, **options)
    return path
