"""Metadata of pictures: what is kept byte for byte, corrected, followed (Adobe RGB), or told to be lost."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from captions import CAPTIONS, IPTC, XMP, read_deep
from PIL import ExifTags, Image
from skimage.color import xyz2rgb

from scsnet.pictures import read_picture, write_picture
from scsnet.pictures.exif import srgb_profile
from scsnet.pictures.metadata import Captions

BASE, IFD = ExifTags.Base, ExifTags.IFD
PHOTO = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
TEXT = "Großmutter 1941, Café, Жизнь".encode()
COMMENT = b"ASCII\0\0\0hello"
ENDINGS = ["jpg", "png", "tif", "webp"]


def save(path, **options):
    Image.fromarray(PHOTO).save(path, **options)
    return path


@pytest.mark.parametrize("source", ENDINGS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_keeps_exif_text_of_other_scripts(tmp_path, source, ending):
    exif = Image.Exif()
    place = "x" * len(TEXT)  # replaced after writing: Pillow writes ASCII only
    exif[BASE.ImageDescription], exif[BASE.Orientation] = place, 6
    exif[IFD.Exif] = {int(BASE.LensModel): place, int(BASE.UserComment): COMMENT}
    path = tmp_path / f"in.{source}"
    save(path, exif=exif.tobytes(), dpi=(300, 300))
    path.write_bytes(path.read_bytes().replace(place.encode(), TEXT))
    if source == "png":  # whose chunks have checksums
        save(path, exif=exif.tobytes().replace(place.encode(), TEXT), dpi=(300, 300))
    picture = read_picture(path)
    out = tmp_path / f"out.{ending}"
    assert write_picture(out, picture.rgb, tags=picture.tags, dpi=(600, 600)) == []
    assert out.read_bytes().count(TEXT + b"\0") == 2
    again = read_picture(out)
    assert (again.width, again.height) == (6, 9)
    assert again.tags[IFD.Exif][BASE.UserComment] == COMMENT
    assert again.dpi == pytest.approx((600, 600), abs=0.1)
    assert again.notes == ()


def ask_exiftool(path, *options):
    command = ["exiftool", "-json", "-n", "-a", "-G1", *options, str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")
@pytest.mark.parametrize("ending", ENDINGS)
def test_exiftool_reads_the_same_before_and_after(tmp_path, ending):
    path, out = save(tmp_path / "in.jpg"), tmp_path / f"out.{ending}"
    values = {"IFD0:ImageDescription": "Großmutter 1941, Café", "IFD0:Artist": "José Müller", "IFD0:XPTitle": "Жизнь",
              "ExifIFD:UserComment": "Жизнь", "ExifIFD:LensModel": "Ä", "ExifIFD:ExposureCompensation": -0.5,
              "GPS:GPSLatitude": 50.9, "IPTC:Caption-Abstract": "Oma in Köln", "XMP-dc:Title": "Oma",
              "XMP-dc:Description": "Köln 1941", "XMP-xmp:Rating": 5}  # fmt: skip
    assignments = [f"-{name}={value}" for name, value in values.items()]
    command = ["exiftool", "-charset", "iptc=utf8", "-codedcharacterset=utf8", *assignments, path]
    subprocess.run(command, capture_output=True, check=True)
    picture, before = read_picture(path), ask_exiftool(path)
    resolution = {"IFD0:XResolution": 300, "IFD0:YResolution": 299.5}
    dpi = tuple(resolution.values())
    notes = write_picture(out, PHOTO, tags=picture.tags, captions=picture.captions, dpi=dpi)
    if ending == "webp":
        assert notes == ["a WEBP cannot keep its IPTC: left out"]
        del values["IPTC:Caption-Abstract"]
    else:
        assert notes == []
    expected = {name: before[name] for name in values} | resolution
    after = ask_exiftool(out)
    assert {name: after[name] for name in expected} == expected
    warnings = [str(value) for value in ask_exiftool(out, "-validate", "-warning").values()]
    assert not any("byte order" in warning or "ExifIFD 0x9286" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("ending", "lost"),
    [
        ("jpg", "a JPEG cannot keep its PNG texts (Title, Author): left out"),
        ("png", None),
        ("tif", "a TIFF cannot keep its comment, its PNG texts (Title, Author): left out"),
        ("webp", "a WEBP cannot keep its IPTC, its comment, its PNG texts (Title, Author): left out"),
    ],
)  # fmt: skip
def test_keeps_captions_or_tells_their_loss(tmp_path, ending, lost):
    path, once_more = tmp_path / f"out.{ending}", tmp_path / f"again.{ending}"
    notes = write_picture(path, PHOTO, captions=CAPTIONS, dpi=(300, 200))
    assert notes == ([lost] if lost else [])
    picture = read_picture(path)
    captions = picture.captions
    assert picture.notes == ()
    assert captions.iptc == (None if ending == "webp" else IPTC)
    assert captions.comment == (b"by hand" if ending == "jpg" else None)
    assert captions.texts == (CAPTIONS.texts | {"Comment": "by hand"} if ending == "png" else {})
    assert write_picture(once_more, PHOTO, captions=captions, dpi=(300, 200)) == []
    assert once_more.read_bytes() == path.read_bytes()
    xmp = captions.xmp.decode()
    for part in ("Oma in Köln &amp; Bonn", 'tiff:Orientation="1"', 'tiff:ImageWidth="9"', ">9</exif:PixelX", ">6</exif:PixelY",
                 'stDim:h="6"', "Grandma", "<?xpacket begin", "<?xpacket end"):  # fmt: skip
        assert part in xmp
    assert "Thumbnails" not in xmp


def test_leaves_out_regions_of_a_turned_picture(tmp_path):
    exif = Image.Exif()
    exif[BASE.Orientation] = 6
    picture = read_picture(save(tmp_path / "in.webp", exif=exif, xmp=XMP))
    assert any("regions" in note for note in picture.notes)
    assert b"Grandma" not in picture.captions.xmp
    assert "Oma in Köln" in picture.captions.xmp.decode()


@pytest.mark.parametrize("xmp", [b"no XML", b"<a>" * 5000, XMP[:500], "<a>ä</a>".encode("latin-1")])
def test_tells_broken_xmp(tmp_path, xmp):
    (note,) = write_picture(tmp_path / "a.jpg", PHOTO, captions=Captions(xmp=xmp))
    assert "XMP cannot be read" in note
    assert read_picture(tmp_path / "a.jpg").captions.xmp is None


def test_a_jpeg_keeps_all_comments_and_tells_captions_too_long(tmp_path):
    path = save(tmp_path / "in.jpg", comment=b"one", extra=b"\xff\xfe\0\5two")
    assert set(read_picture(path).captions.comment.split()) == {b"one", b"two"}
    xmp = XMP.replace(b"Bonn", b"x" * 70000)
    captions = Captions(xmp=xmp, iptc=IPTC * 4000, comment=b"x" * 70000)
    (note,) = write_picture(tmp_path / "a.jpg", PHOTO, captions=captions)
    assert note.count("64 KB") == 3
    assert write_picture(tmp_path / "a.png", PHOTO, captions=captions) == []
    assert read_picture(tmp_path / "a.png").captions.iptc == IPTC * 4000


def test_reads_a_resolution_only_where_one_is_declared(tmp_path):
    exif = Image.Exif()
    exif[BASE.XResolution] = exif[BASE.YResolution] = 1.0
    exif[BASE.ResolutionUnit] = 1  # none: an aspect ratio
    assert read_picture(save(tmp_path / "a.tif")).dpi is None
    assert read_picture(save(tmp_path / "a.jpg", exif=exif)).dpi is None
    assert read_picture(save(tmp_path / "b.jpg", dpi=(72, 72))).dpi == (72, 72)
    assert read_picture(save(tmp_path / "b.tif", dpi=(96, 72))).dpi == (96, 72)


@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_writes_sixteen_bits_exactly(tmp_path, ending, with_alpha, monkeypatch):
    monkeypatch.setattr("scsnet.pictures.png._BAND_BYTES", 200)  # several bands and strips
    monkeypatch.setattr("scsnet.pictures.tiff._STRIP_BYTES", 200)
    path, shallow = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    values = np.random.default_rng(1).random((6, 9, 3), np.float32)
    alpha = PHOTO[..., 0] if with_alpha else None
    for target, array in ((path, values), (shallow, PHOTO)):
        write_picture(target, array, alpha=alpha, captions=CAPTIONS, dpi=(300, 300), tags={271: "Ä"})  # fmt: skip
    samples, expected = read_deep(path), np.rint(values.astype(np.float64) * 65535)
    assert np.abs(samples[..., :3] - expected).max() <= 1
    assert np.mean(samples[..., :3] == expected) > 0.99  # float32 * 65535, rounded
    assert not with_alpha or (samples[..., 3] == alpha.astype(int) * 257).all()
    deep, other = read_picture(path), read_picture(shallow)
    assert (deep.tags, deep.captions, deep.dpi) == (other.tags, other.captions, other.dpi)
    with Image.open(path) as one, Image.open(shallow) as two:
        assert one.info["icc_profile"] == two.info["icc_profile"]


# Adobe RGB (1998) Color Image Encoding, 4.3.5.3: linear RGB to XYZ, D65
TO_XYZ = np.array(
    [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]]
)
COLORS = np.array([[200, 100, 50], [90, 140, 80], [128, 128, 128], [20, 30, 160], [255, 255, 255]])


def read_colors(path, space, interop, **options):
    """Read fields of these colours from a file with the given tags; also return what they became."""
    exif = Image.Exif()
    exif[IFD.Exif] = {int(BASE.ColorSpace): space, int(IFD.Interop): {1: interop}}
    if path.suffix == ".jpg":
        options |= {"quality": 100, "subsampling": 0}
    pixels = COLORS.astype(np.uint8)[None].repeat(16, 0).repeat(16, 1)
    Image.fromarray(pixels).save(path, exif=exif.tobytes(), **options)
    picture = read_picture(path)
    return picture, picture.rgb[8, 8::16].astype(int)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_adobe_rgb_that_only_exif_tells_becomes_srgb(tmp_path, name):
    picture, found = read_colors(tmp_path / name, 65535, "R03")
    expected = 255 * xyz2rgb((COLORS / 255) ** (563 / 256) @ TO_XYZ.T)
    assert np.abs(found - expected).max() < 2.5
    assert np.abs(found - COLORS).max() > 20
    assert picture.notes == ()
    write_picture(tmp_path / "b.jpg", picture.rgb, tags=picture.tags)
    details = read_picture(tmp_path / "b.jpg").tags[IFD.Exif]
    assert (details[BASE.ColorSpace], details[IFD.Interop][1]) == (1, "R98")


@pytest.mark.parametrize(
    ("space", "interop", "options"),
    [(1, "R03", {}), (65535, "R98", {}), (65535, "R03", {"icc_profile": srgb_profile()})],
)
def test_other_tags_and_profiles_are_followed(tmp_path, space, interop, options):
    _, found = read_colors(tmp_path / "a.jpg", space, interop, **options)
    assert np.abs(found - COLORS).max() <= 2
