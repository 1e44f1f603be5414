"""Pictures in files of every mode and format, read and written."""

import os
import re
import stat
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps, PngImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from profiles import make_gray_profile, make_swapped_profile

from scsnet.pictures import files as pictures
from scsnet.pictures import read_picture, write_picture
from scsnet.pictures.exif import srgb_profile
from scsnet.pictures.formats import PictureError, check_output_size
from scsnet.pictures.jpeg import BLURRED, DAMAGED, UNENDED

BASE = ExifTags.Base
RAMP = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)  # 6 wide, 4 high
PHOTO = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=-1)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def needs(ending):
    Image.init()
    if Image.registered_extensions().get(f".{ending}") not in Image.SAVE:
        pytest.skip("this Pillow does not write it")


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def read(path, data):
    path.write_bytes(data)
    return read_picture(path)


def orient(orientation):
    exif = Image.Exif()
    exif[BASE.Orientation] = orientation
    return exif


@pytest.mark.parametrize(
    ("mode", "ending"),
    [
        ("1", "png"), ("L", "jpg"), ("L", "gif"), ("P", "png"), ("RGB", "webp"), ("RGB", "jp2"), ("RGB", "avif"),
        ("CMYK", "jpg"), ("CMYK", "tif"), ("LAB", "tif"), ("RGBA", "png"), ("RGBA", "webp"), ("LA", "tif"),
    ],
)  # fmt: skip
def test_reads_every_mode_as_it_looks(tmp_path, mode, ending):
    needs(ending)
    smooth = Image.linear_gradient("L").resize((24, 32))
    color = Image.merge("RGB", [smooth, ImageOps.flip(smooth), smooth.rotate(180)])
    shown = smooth if mode in ("1", "L", "LA") else color
    alpha = color.getchannel("G") if mode in ("RGBA", "LA") else None
    image = shown.convert(mode)
    if alpha:
        image.putalpha(alpha)
    image.save(path := tmp_path / f"picture.{ending}")
    picture = read_picture(path)
    assert picture.rgb.shape == (32, 24, 1 if shown == smooth and ending != "gif" else 3)
    assert picture.notes == ()
    assert np.array_equal(picture.alpha, alpha)
    expected = np.asarray(image.convert("L") if mode == "1" else shown).reshape(32, 24, -1)
    tolerance = 16 if mode == "P" else 0 if ending == "png" else 8
    assert np.abs(picture.rgb.astype(float) - expected).mean() <= tolerance


def test_reads_the_transparency_of_a_palette(tmp_path):
    image = Image.fromarray(PHOTO).quantize(8)
    image.save(tmp_path / "one.png", transparency=image.getpixel((0, 0)))
    image.save(tmp_path / "many.png", transparency=bytes(range(0, 160, 20)))
    one, many = read_picture(tmp_path / "one.png"), read_picture(tmp_path / "many.png")
    assert one.alpha[0, 0] == 0
    assert one.alpha.max() == 255
    assert (many.alpha == np.asarray(image) * 20).all()
    assert (many.rgb == np.asarray(image.convert("RGB"))).all()  # not blended


@pytest.mark.parametrize(
    ("bits", "row"), [(2, b"\xd8"), (4, b"\xf0\x3f"), (8, b"\xff\0\3\xff"), (16, b"\xff\xff\0\0" * 2)]
)  # fmt: skip
def test_reads_the_transparent_value_of_gray(tmp_path, bits, row):
    """tRNS counts in the values of the file, of which Pillow brings 2 and 4 bits to 8."""
    with (tmp_path / "a.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        PngImagePlugin.putchunk(file, b"IHDR", struct.pack(">2I5B", 4, 1, bits, 0, 0, 0, 0))
        PngImagePlugin.putchunk(file, b"tRNS", struct.pack(">H", 2**bits - 1))
        PngImagePlugin.putchunk(file, b"IDAT", zlib.compress(b"\0" + row))
        PngImagePlugin.putchunk(file, b"IEND")
    picture = read_picture(tmp_path / "a.png")
    white = picture.rgb[..., 0] == picture.rgb.max()
    assert 0 < white.mean() < 1
    assert (picture.alpha == np.where(white, 0, 255)).all()


@pytest.mark.parametrize(
    ("values", "dtype", "photometric", "expected", "noted"),
    [
        ([0, 1, 30000, 65535], "uint16", "minisblack", [0, 1 / 65535, 30000 / 65535, 1], False),
        ([0, 1, 30000, 65535], "uint16", "miniswhite", [1, 65534 / 65535, 35535 / 65535, 0], False),
        ([0, 0.25, 1], "float32", "minisblack", [0, 0.25, 1], False),
        ([0, 51, 255], "float32", "minisblack", [0, 0.2, 1], False),
        ([0, 13107, 65535], "uint32", "minisblack", [0, 0.2, 1], False),
        ([-100, 0, 100], "float32", "minisblack", [0, 0.5, 1], True),
        ([np.nan, 1, 0.5], "float32", "minisblack", [0, 1, 0.5], True),
        ([-7, -7, -7], "float32", "minisblack", [0, 0, 0], True),
    ],
)
def test_keeps_the_precision_of_deep_gray(tmp_path, values, dtype, photometric, expected, noted):
    tifffile = pytest.importorskip("tifffile", reason="Pillow does not write these")
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, np.array([values], dtype), photometric=photometric)
    picture = read_picture(path)
    np.testing.assert_allclose(picture.rgb[0, :, 0], expected, atol=1e-6)
    assert bool(picture.notes) == noted


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_pictures_as_pillow_does(tmp_path, orientation, ending):
    array, exif = np.dstack([PHOTO, RAMP]), orient(orientation)
    path = save(tmp_path / f"a.{ending}", array, exif=exif, dpi=(100, 200))
    with Image.open(path) as again:
        expected = np.asarray(ImageOps.exif_transpose(again))
    picture = read_picture(path)
    assert (picture.rgb == expected[..., :3]).all()
    assert (picture.alpha == expected[..., 3]).all()
    assert picture.dpi == pytest.approx((100, 200) if orientation < 5 else (200, 100), abs=0.1)


@pytest.mark.parametrize("gamma", [1.0, 1.8])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_converts_gray_profiles(tmp_path, gamma, dtype):
    white, count = np.iinfo(dtype).max, 256 if dtype == np.uint8 else 4096
    array = np.linspace(0, white, count).round().astype(dtype)[None]
    picture = read_picture(save(tmp_path / "gray.tif", array, icc_profile=make_gray_profile(gamma)))
    assert picture.notes == ()
    light = (array[0] / white) ** (round(gamma * 256) / 256)
    exact = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(picture.rgb[0, :, 0] - exact).max() < 1e-3
    assert len(np.unique(picture.rgb)) > 0.97 * count


def test_converts_colour_profiles(tmp_path):
    path = save(tmp_path / "swapped.png", PHOTO, icc_profile=make_swapped_profile())
    picture = read_picture(path)
    assert picture.notes == ()
    assert np.abs(picture.rgb.astype(int) - PHOTO[..., [1, 0, 2]]).max() <= 2


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "I;16"])
@pytest.mark.parametrize("profile", [b"no profile", srgb_profile()[:300], make_gray_profile(2.2)])
def test_tells_profiles_that_cannot_be_used(tmp_path, mode, profile):
    array = RAMP.astype(np.uint16) * 257 if mode == "I;16" else PHOTO
    array_mode = None if mode == "I;16" else mode
    picture = read_picture(save(tmp_path / "a.tif", array, array_mode, icc_profile=profile))
    plain = read_picture(save(tmp_path / "b.tif", array, array_mode))
    if profile == make_gray_profile(2.2) and mode in ("L", "I;16"):
        assert picture.notes == ()
    else:
        assert "profile cannot be used" in picture.notes[0]
        assert (picture.rgb == plain.rgb).all()


@pytest.mark.parametrize("white", [255, 1023, 65535])
def test_tells_colours_of_more_than_8_bits(tmp_path, white):
    write_picture(tmp_path / "a.png", PHOTO if white == 255 else PHOTO / np.float32(255))
    (tmp_path / "a.ppm").write_bytes(b"P6 2 1 %d\n" % white + bytes(12))
    lost = ("holds more than 8 bits per colour, of which Pillow reads 8",)
    for path in tmp_path.iterdir():
        assert read_picture(path).notes == (() if white == 255 else lost)
    assert (read_picture(tmp_path / "a.png").rgb == PHOTO).all()


def test_tells_a_jpeg_2000_of_more_than_8_bits(tmp_path):
    needs("jp2")
    data = bytearray(save(tmp_path / "a.jp2", NOISE).read_bytes())
    header = data.index(b"\xff\x51")
    for bits, said in ((8, 0), (16, 1)):
        data[header + 40 : header + 47 : 3] = [bits - 1] * 3  # of each colour
        assert len(read(tmp_path / "a.jp2", data).notes) == said


@pytest.mark.parametrize(
    ("gamma", "orientation", "notes"),
    [
        (45455, 1, ()),
        (100000, 1, ("its gamma of 1 is not followed, its values are taken as sRGB",)),
        (45455, 77, ("its EXIF orientation 77 means nothing and is ignored",)),
    ],
)
def test_tells_what_is_not_followed(tmp_path, gamma, orientation, notes):
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", gamma))
    path = save(tmp_path / "a.png", PHOTO, pnginfo=info, exif=orient(orientation))
    picture = read_picture(path)
    assert picture.notes == notes
    assert (picture.rgb == PHOTO).all()


@pytest.mark.parametrize(("tag", "value"), [(254, 1), (50706, b"\1\4\0\0")])
def test_tells_the_preview_of_a_raw_file(tmp_path, tag, value):
    tags = ImageFileDirectory_v2()
    tags[tag] = value
    picture = read_picture(save(tmp_path / "a.dng", PHOTO, format="TIFF", tiffinfo=tags))
    (note,) = picture.notes
    assert note == "is a raw file or a preview: only its small picture of 6 x 4 is read"
    write_picture(tmp_path / "b.tif", PHOTO, tags=picture.tags)
    assert read_picture(tmp_path / "b.tif").notes == ()


@pytest.mark.parametrize("own", [False, True])
def test_reads_the_largest_picture_of_a_raw_file(tmp_path, own):
    """A small picture, turned, and in directories below it another small one and a large one, turned by its `own` tag."""
    tifffile = pytest.importorskip("tifffile", reason="Pillow does not write these")
    large = np.arange(90 * 60 * 3).reshape(60, 90, 3).astype(np.uint8)

    def describe(orientation):
        return {"photometric": "rgb", "extratags": [(274, 3, 1, orientation, True)]}

    with tifffile.TiffWriter(tmp_path / "a.dng") as file:
        file.write(PHOTO, subifds=2, subfiletype=1, **describe(6))
        file.write(PHOTO, subfiletype=1, **describe(1))
        file.write(large, **describe(6 if own else 1))
    picture = read_picture(tmp_path / "a.dng")
    (note,) = picture.notes
    assert note.startswith("is a raw file: of its pictures the one of ")
    assert np.array_equal(picture.rgb, np.rot90(large, -1))


def test_reads_large_texts_and_profiles_of_a_png(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 3_000_000, zip=True)
    info.add_itxt("XML:com.adobe.xmp", "<a>" + "y" * 3_000_000 + "</a>", zip=True)
    profile = srgb_profile() + bytes(2_000_000)
    path = save(tmp_path / "a.png", PHOTO, pnginfo=info, icc_profile=profile)
    before = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    picture = read_picture(path)
    assert len(picture.captions.texts["Comment"]) == 3_000_000
    assert len(picture.captions.xmp) > 3_000_000
    assert before == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)


@pytest.mark.parametrize(
    "ending", ["png", "jpg", "tif", "webp", "gif", "bmp", "tga", "ppm", "jp2", "avif", "ico"]
)
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, ending, monkeypatch):
    needs(ending)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1_000_000)  # damaged sizes take no gigabytes
    path = tmp_path / f"x.{ending}"
    whole = save(path, NOISE).read_bytes()
    for part in (0.02, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(PictureError, match=re.escape(str(path))):
            read_picture(path)
    random = np.random.default_rng(0)
    for _ in range(40):
        data = bytearray(whole)
        for place in random.integers(0, min(len(whole), 400), 3):
            data[place] = random.integers(256)
        path.write_bytes(data)
        try:
            read_picture(path)
        except PictureError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_libtiff_prints_nothing(tmp_path, capfd):
    """It writes of damaged files to the process's stderr; that becomes a note or an error."""
    path = tmp_path / "x.tif"
    outcomes = set()
    for compression in ("group4", "tiff_lzw", "tiff_adobe_deflate"):
        mode = "1" if compression == "group4" else "L"
        data = bytearray(save(path, NOISE, mode, compression=compression).read_bytes())
        for place in (30, 60, 100):
            data[place] ^= 255
            path.write_bytes(data)
            try:
                outcomes.update(read_picture(path).notes)
            except PictureError as error:
                outcomes.add(str(error))
    assert any("damaged" in outcome for outcome in outcomes)
    save(path, PHOTO)
    before = os.fstat(2)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: read_picture(path), range(40)))
    assert os.path.samestat(before, os.fstat(2))  # threads leave it alone
    assert capfd.readouterr().err == ""


def test_refuses_what_is_no_regular_file(tmp_path):
    with pytest.raises(PictureError, match="null"):
        read_picture("a\0b.png")
    with pytest.raises(PictureError, match="not a regular file"):
        read_picture(os.devnull)


def test_reads_large_scans_but_no_absurd_ones(tmp_path, monkeypatch):
    path = tmp_path / "scan.png"
    Image.new("1", (20000, 10000)).save(path)
    assert read_picture(path).width == 20000
    monkeypatch.setattr(pictures, "MAX_PIXELS", 50_000_000)
    with pytest.raises(PictureError, match="50 million"):  # from Pillow, beyond twice the limit
        read_picture(path)
    Image.new("1", (9000, 9000)).save(path)
    with pytest.raises(PictureError, match="50 million"):
        read_picture(path)
    assert Image.MAX_IMAGE_PIXELS == 89478485  # Pillow's own limit is left as it was


@pytest.mark.parametrize("ending", ["png", "JPEG", "webp", "tif"])
def test_written_pictures_are_read_again(tmp_path, ending):
    image = np.asarray(Image.fromarray(PHOTO).resize((60, 40)))
    alpha = np.asarray(Image.fromarray(255 - RAMP).resize((60, 40)))
    details = {BASE.ExifImageWidth: 6, BASE.ExifImageHeight: 4, BASE.ColorSpace: 65535}
    tags = {int(BASE.Artist): "Ann", int(ExifTags.IFD.GPSInfo): {1: "N", 2: (1.0, 2.0, 3.0)}}
    tags[int(ExifTags.IFD.Exif)] = {int(tag): value for tag, value in details.items()}
    path, same = tmp_path / f"out.{ending}", tmp_path / f"same.{ending}"
    jpeg = ending == "JPEG"
    for target in (path, same):
        notes = write_picture(target, image, alpha=alpha, tags=tags, dpi=(1200, 600))
        assert notes == ["JPEG has no transparency, its see-through parts are white"] * jpeg
    assert path.read_bytes() == same.read_bytes()
    with pytest.raises(PictureError, match="exists already"):
        write_picture(path, image)
    picture = read_picture(path)
    seen = image
    if jpeg:
        assert picture.alpha is None
        seen = 255 - (255 - image) * (alpha / 255)[..., None]  # on white
    else:
        assert (picture.alpha == alpha).all()
    lossless = ending in ("png", "tif")
    assert np.abs(picture.rgb - seen.astype(float)).mean() < (0.001 if lossless else 2)
    assert picture.dpi == pytest.approx((1200, 600), abs=0.1)
    assert picture.tags[BASE.Artist] == "Ann"
    assert picture.tags[ExifTags.IFD.GPSInfo][2] == (1.0, 2.0, 3.0)
    with Image.open(path) as again:
        assert again.info["icc_profile"] == srgb_profile()
        assert again.getexif()[BASE.Orientation] == 1
    assert [picture.tags[ExifTags.IFD.Exif][tag] for tag in details] == [60, 40, 1]


def test_tells_exif_that_cannot_be_kept(tmp_path):
    tags = {int(BASE.Make): "Camera", int(BASE.Artist): object()}
    assert "Artist" in write_picture(tmp_path / "a.png", PHOTO, tags=tags)[0]
    assert read_picture(tmp_path / "a.png").tags[BASE.Make] == "Camera"
    tags = {int(BASE.ImageDescription): "x" * 70000}
    assert "does not fit" in write_picture(tmp_path / "a.jpg", PHOTO, tags=tags)[0]
    assert write_picture(tmp_path / "b.png", PHOTO, tags=tags) == []


@pytest.mark.parametrize(
    "exif", [b"rubbish", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff\x12\x01"]
)
def test_broken_exif_is_no_obstacle(tmp_path, exif):
    picture = read_picture(save(tmp_path / "a.jpg", PHOTO, exif=b"Exif\0\0" + exif))
    write_picture(tmp_path / "a.png", picture.rgb, tags=picture.tags)


def test_refuses_what_a_format_cannot_hold(tmp_path):
    with pytest.raises(PictureError, match="ending"):
        write_picture(tmp_path / "a.xyz", PHOTO)
    wide = np.broadcast_to(np.uint8(0), (1, 70000, 3))
    for name, reason in (("a.jpg", "65500"), ("a.webp", "16383")):
        with pytest.raises(PictureError, match=reason):
            write_picture(tmp_path / name, wide)
    with pytest.raises(PictureError, match="4 GB"):
        check_output_size(tmp_path / "a.tif", 35000, 35000)
    with pytest.raises(PictureError, match="cannot be written: No such file"):
        write_picture(tmp_path / "none" / "a.png", PHOTO)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions and links")
def test_writes_through_links_with_usual_permissions(tmp_path):
    path, link = tmp_path / "a.png", tmp_path / "link.png"
    link.symlink_to(path)
    write_picture(link, PHOTO)
    assert link.is_symlink()
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


KINDS = {"sequential": {}, "gray": {}, "progressive": {"progressive": True}, "restarts": {"restart_marker_rows": 2}}  # fmt: skip


def encode_jpeg(kind, seed=0, size=(160, 120), **options):
    """A JPEG of broad and fine detail."""
    random, file = np.random.default_rng(seed), BytesIO()
    noise = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    picture = np.asarray(noise.resize(size, Image.Resampling.BICUBIC)).astype(int)
    picture = (picture + random.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(picture).convert("L" if kind == "gray" else "RGB")
    image.save(file, "JPEG", **{"quality": 90} | KINDS[kind] | options)
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"quality": 30}, {"subsampling": 0, "optimize": True}])
def test_sound_jpegs_are_as_pillow_reads_them(tmp_path, kind, options):
    for number, size in enumerate([(160, 120), (1, 1), (9, 70), (17, 16)]):
        data = encode_jpeg(kind, number, size, **options)
        for more in (b"", bytes(5), b"thumbnail \xff\xd8\xff\xd9"):  # behind the end
            picture = read(tmp_path / "a.jpg", data + more)
            assert picture.notes == ()
            expected = np.asarray(Image.open(BytesIO(data)))
            assert np.array_equal(picture.rgb.squeeze(), expected.squeeze())
        filled = data[:-2] + bytes(40) + data[-2:]  # as some cameras write
        assert read(tmp_path / "a.jpg", filled).notes == ()


@pytest.mark.parametrize("kind", ["sequential", "progressive"])
def test_overwritten_data_of_jpegs_is_said(tmp_path, kind):
    random = np.random.default_rng(1)
    said = 0
    for seed in range(20):
        data = bytearray(encode_jpeg(kind, seed))
        place = random.integers(len(data) // 4, len(data) - 200)
        data[place : place + 40] = random.integers(1, 255, 40, dtype=np.uint8).tobytes()
        try:
            said += DAMAGED in read(tmp_path / "a.jpg", bytes(data)).notes
        except PictureError:  # what libjpeg refuses by itself
            said += 1
    assert said >= 8  # the rest stands for as many pixels as before


@pytest.mark.parametrize("kind", KINDS)
def test_scans_of_jpegs_cut_short_or_prolonged_are_said(tmp_path, kind):
    data = encode_jpeg(kind)
    for end in (data[:-1000] + b"\xff\xd9", data[:-2] + bytes(range(1, 200)) + b"\xff\xd9"):
        assert read(tmp_path / "a.jpg", end).notes == (DAMAGED,)
    with pytest.raises(PictureError, match="truncated"):
        read(tmp_path / "a.jpg", data[:-1000])
    assert read(tmp_path / "a.jpg", data[:-2]).notes == (UNENDED,)


def test_missing_scans_of_jpegs_are_said(tmp_path):
    data = encode_jpeg("progressive")
    last = data.rfind(b"\xff\xda")
    cut = data[: data.rfind(b"\xff\xc4", 0, last)]  # with the tables of the last scan
    assert read(tmp_path / "a.jpg", cut + b"\xff\xd9").notes == (BLURRED,)
    with pytest.raises(PictureError, match="truncated"):
        read(tmp_path / "a.jpg", cut)
