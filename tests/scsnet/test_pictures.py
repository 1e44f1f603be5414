"""Real files of every mode and format that Pillow writes, read back and written."""

import io
import os
import shutil
import stat
import struct
import subprocess
import tempfile
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from scsnet.pictures import files as pictures
from scsnet.pictures import read_picture, write_picture
from scsnet.pictures.exif import srgb_profile
from scsnet.pictures.formats import PictureError, check_output_size

BASE = ExifTags.Base
RAMP = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)  # 6 wide, 4 high
PHOTO = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=-1)


def needs(ending):
    Image.init()
    if Image.registered_extensions().get(f".{ending}") not in Image.SAVE:
        pytest.skip("this Pillow does not write it")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def tiff(array, photometric=1, bits=None):
    """An uncompressed gray TIFF written by hand: what Pillow reads but does not write."""
    data, spp = array.tobytes(), 1
    kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    height, width = array.shape
    tags = [
        (256, width),
        (257, height),
        (258, bits or array.dtype.itemsize * 8),
        (259, 1),
        (262, photometric),
    ]
    tags += [(273, 8 + 2 + 12 * 10 + 4), (277, spp), (278, height), (279, len(data)), (339, kind)]
    entries = b"".join(
        struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def gray_profile(gamma):
    """A gray ICC profile of a plain gamma."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    text = b"text" + bytes(4) + b"gray\0"
    offset, table, body = 128 + 4 + 12 * 3, b"", b""
    for tag, data in ((b"desc", text), (b"kTRC", curve), (b"wtpt", white)):
        table += tag + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = (
        bytes(4)
        + b"lcms"
        + struct.pack(">I", 0x02400000)
        + b"mntrGRAYXYZ "
        + struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
    )
    head += b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    profile = head.ljust(128, b"\0") + struct.pack(">I", 3) + table + body
    return struct.pack(">I", len(profile)) + profile[4:]


def srgb_encode(y):
    return np.where(y <= 0.0031308, 12.92 * y, 1.055 * y ** (1 / 2.4) - 0.055)


# Reading: modes


@pytest.mark.parametrize(
    ("mode", "ending", "planes"),
    [
        ("1", "png", 1), ("1", "tif", 1), ("1", "bmp", 1), ("L", "jpg", 1), ("L", "png", 1), ("L", "gif", 3), ("P", "png", 3),
        ("RGB", "png", 3), ("RGB", "webp", 3), ("RGB", "bmp", 3), ("RGB", "ppm", 3), ("RGB", "tga", 3), ("RGB", "avif", 3),
        ("CMYK", "jpg", 3), ("CMYK", "tif", 3), ("YCbCr", "tif", 3), ("YCbCr", "jpg", 3), ("LAB", "tif", 3), ("I;16", "png", 1),
        ("I;16", "tif", 1), ("I;16B", "tif", 1), ("I", "tif", 1), ("F", "tif", 1), ("RGBA", "png", 3), ("LA", "png", 1),
        ("RGBA", "webp", 3), ("RGBA", "tif", 3), ("LA", "tif", 1), ("RGB", "jp2", 3)
    ],
)  # fmt: skip
def test_every_mode_looks_as_pillow_shows_it(tmp_path, mode, ending, planes):
    needs(ending)
    smooth = Image.linear_gradient("L").resize((24, 32))
    colour = Image.merge("RGB", [smooth, ImageOps.flip(smooth), smooth.rotate(180)])
    if mode in ("I;16", "I;16B", "I"):
        image = (
            Image.fromarray(np.asarray(smooth).astype(np.uint16) * 257).convert("I").convert(mode)
        )
    elif mode == "F":
        image = Image.fromarray(np.asarray(smooth) / np.float32(255))
    elif mode == "LAB":
        transform = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        image = ImageCms.applyTransform(colour, transform)
    else:
        image = (smooth if mode in ("1", "L", "LA") else colour).convert(mode)
    if mode == "RGBA":
        image.putpixel(
            (0, 0), (*image.getpixel((0, 0))[:3], 0)
        )  # WebP drops an alpha that is opaque everywhere
    path = tmp_path / f"picture.{ending}"
    # Pillow before 13 does not read its own uncompressed YCbCr.
    image.save(path, **({"compression": "jpeg"} if (mode, ending) == ("YCbCr", "tif") else {}))
    picture = read_picture(path)
    assert (picture.height, picture.width, picture.rgb.shape[2]) == (32, 24, planes)
    assert (picture.alpha is not None) == (mode in ("RGBA", "LA"))
    assert picture.notes == ()
    found = picture.rgb / 255 if picture.rgb.dtype == np.uint8 else picture.rgb
    shown = (
        smooth.convert("1")
        if mode == "1"
        else smooth
        if planes == 1
        else colour
        if mode != "L"
        else smooth.convert("RGB")
    )
    expected = np.asarray(shown.convert("L" if planes == 1 else "RGB")).reshape(32, 24, -1) / 255
    error = np.abs(found - expected).mean()
    assert error < {"jpg": 0.06, "webp": 0.03, "avif": 0.03, "gif": 0.01, "tif": 0.03}.get(
        ending, 0.06 if mode == "P" else 1e-6
    )


def test_palette_with_transparency(tmp_path):
    image = Image.fromarray(PHOTO).quantize(8)
    image.save(tmp_path / "one.png", transparency=image.getpixel((0, 0)))
    image.save(tmp_path / "many.png", transparency=bytes(range(0, 160, 20)))
    one, many = read_picture(tmp_path / "one.png"), read_picture(tmp_path / "many.png")
    assert one.alpha[0, 0] == 0
    assert one.alpha.max() == 255
    assert (many.alpha == np.asarray(image) * 20).all()
    assert (many.rgb == np.asarray(image.convert("RGB"))).all()  # not blended


@pytest.mark.parametrize(
    ("array", "transparent"), [(RAMP, 50), (RAMP.astype(np.uint16) * 257, 50 * 257)]
)
def test_gray_with_one_transparent_value(tmp_path, array, transparent):
    picture = read_picture(save(tmp_path / "a.png", array, transparency=transparent))
    assert (picture.alpha == np.where(RAMP == 50, 0, 255)).all()


@pytest.mark.parametrize(
    ("array", "photometric", "bits", "expected"),
    [
        (np.array([[0, 1, 30000, 65535]], np.uint16), 1, None, [0, 1 / 65535, 30000 / 65535, 1]),
        (
            np.array([[0, 1, 30000, 65535]], np.uint16),
            0,
            None,
            [1, 65534 / 65535, 35535 / 65535, 0],
        ),  # white is zero
        (np.array([[0, 128, 255]], np.uint8), 0, None, [1, 127 / 255, 0]),
        (np.array([[0, 0.25, 1]], np.float32), 1, None, [0, 0.25, 1]),
        (np.array([[0, 51, 255]], np.float32), 1, None, [0, 0.2, 1]),
        (np.array([[0, 13107, 65535]], np.uint32), 1, None, [0, 0.2, 1]),
        (np.array([[0, 51, 255]], np.uint32), 1, None, [0, 0.2, 1]),
        (np.array([[-100, 0, 100]], np.float32), 1, None, [0, 0.5, 1]),
        (np.array([[np.nan, 1, 0.5]], np.float32), 1, None, [0, 1, 0.5]),
        (np.zeros((1, 3), np.float32), 1, None, [0, 0, 0]),
        (np.full((1, 3), -7, np.float32), 1, None, [0, 0, 0]),
    ],
)
def test_deep_gray_keeps_its_precision(tmp_path, array, photometric, bits, expected):
    (tmp_path / "deep.tif").write_bytes(tiff(array, photometric, bits))
    picture = read_picture(tmp_path / "deep.tif")
    scale = 255 if picture.rgb.dtype == np.uint8 else 1
    np.testing.assert_allclose(picture.rgb[0, :, 0] / scale, expected, atol=1e-6)
    assert bool(picture.notes) == (
        (array.dtype == np.float32 and not np.nanmin(array) >= 0) or bool(np.isnan(array).any())
    )


def test_sixteen_bit_png_has_all_its_grays(tmp_path):
    array = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    picture = read_picture(save(tmp_path / "deep.png", array))
    assert len(np.unique(picture.rgb)) == 65536


# Reading: orientation, profiles, frames


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_like_pillow_does(tmp_path, orientation, ending):
    image = Image.fromarray(np.dstack([PHOTO, RAMP]))
    exif = Image.Exif()
    exif[BASE.Orientation] = orientation
    path = tmp_path / f"turned.{ending}"
    image.save(path, exif=exif, dpi=(100, 200))
    with Image.open(path) as again:
        expected = np.asarray(ImageOps.exif_transpose(again))
    picture = read_picture(path)
    assert (picture.rgb == expected[..., :3]).all()
    assert (picture.alpha == expected[..., 3]).all()
    assert picture.dpi == pytest.approx((100, 200) if orientation < 5 else (200, 100), abs=0.1)


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
@pytest.mark.parametrize("deep", [False, True])
def test_gray_profile_is_converted(tmp_path, gamma, deep):
    x = np.linspace(0, 1, 4096 if deep else 256)
    array = (
        (x * 65535).round().astype(np.uint16)[None]
        if deep
        else (x * 255).round().astype(np.uint8)[None]
    )
    picture = read_picture(save(tmp_path / "gray.tif", array, icc_profile=gray_profile(gamma)))
    assert picture.notes == ()
    exact = srgb_encode((array[0] / array.max()) ** (round(gamma * 256) / 256))
    assert np.abs(picture.rgb[0, :, 0] - exact).max() < 1e-3
    if deep:
        assert len(np.unique(picture.rgb)) > 4000


def test_colour_profile_is_converted(tmp_path):
    """A profile whose red is our green: sRGB with its columns exchanged."""
    profile = bytearray(srgb_profile())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    start = profile.index(b"s\0R\0G\0B")
    profile[start : start + 2] = b"x\0"
    picture = read_picture(save(tmp_path / "swapped.png", PHOTO, icc_profile=bytes(profile)))
    assert picture.notes == ()
    assert np.abs(picture.rgb.astype(int) - PHOTO[..., [1, 0, 2]]).max() <= 2


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "I;16"])
@pytest.mark.parametrize("profile", [b"no profile at all", srgb_profile()[:300], gray_profile(2.2)])
def test_a_profile_that_cannot_be_used_is_a_note(tmp_path, mode, profile):
    array = RAMP.astype(np.uint16) * 257 if mode == "I;16" else PHOTO
    path = save(tmp_path / "x.tif", array, mode, icc_profile=profile)
    picture = read_picture(path)
    usable = profile == gray_profile(2.2) and mode in ("L", "I;16")
    assert usable or "profile cannot be used" in picture.notes[0]
    plain = read_picture(save(tmp_path / "y.tif", array, mode))
    assert usable or (picture.rgb == plain.rgb).all()


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_first_frame_of_several(tmp_path, ending):
    frames = [Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)]
    path = tmp_path / f"moving.{ending}"
    options = {"lossless": True} if ending == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    picture = read_picture(path)
    assert picture.notes == (
        f"has 2 {'pages' if ending == 'tif' else 'frames'}, only the first is used",
    )
    assert np.abs(picture.rgb.astype(int) - PHOTO).max() <= 1


def test_sixteen_bits_per_colour_are_said_to_be_lost(tmp_path):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in PHOTO.astype(np.uint16) * 257)
    header = struct.pack(">2I5B", 6, 4, 16, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "deep.png").write_bytes(data)
    picture = read_picture(tmp_path / "deep.png")
    assert (picture.rgb == PHOTO).all()
    assert picture.notes == ("holds more than 8 bits per colour, of which Pillow reads 8",)


@pytest.mark.parametrize("header", [b"P6 2 1 65535\n", b"P6 2 1 1023\n", b"P6 2 1 255\n"])
def test_depth_of_a_ppm(tmp_path, header):
    (tmp_path / "a.ppm").write_bytes(header + bytes(12))
    deep = b"255" not in header
    assert bool(read_picture(tmp_path / "a.ppm").notes) == deep


@pytest.mark.skipif(shutil.which("convert") is None, reason="needs ImageMagick")
def test_depth_of_a_jpeg_2000(tmp_path):
    needs("jp2")
    for bits in (8, 16):
        path = tmp_path / f"{bits}.jp2"
        subprocess.run(["convert", "-size", "16x16", "plasma:", "-type", "TrueColor", "-depth", str(bits), path], check=True)  # fmt: skip
        assert bool(read_picture(path).notes) == (bits == 16)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_transparent_value_of_a_gray_png(tmp_path, bits):
    """tRNS counts in the values of the file, which Pillow brings to 8 bits."""
    top = 2**bits - 1
    row = (
        bytes([0b11011000]) if bits == 2 else bytes([0xF0, 0x3F]) if bits == 4 else b"\xff\0\3\xff"
    )
    header = struct.pack(">2I5B", 4, 1, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", struct.pack(">H", top)), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]  # fmt: skip
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )
    (tmp_path / "a.png").write_bytes(data)
    picture = read_picture(tmp_path / "a.png")
    assert (picture.alpha == np.where(picture.rgb[..., 0] == 255, 0, 255)).all()
    assert 0 < picture.alpha.mean() < 255


def test_xbm_is_black_on_white(tmp_path):
    text = "#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {\n0x0f };\n"
    (tmp_path / "a.xbm").write_text(text)
    assert read_picture(tmp_path / "a.xbm").rgb[0, :, 0].tolist() == [0] * 4 + [255] * 4


def test_gamma_that_is_not_followed_is_said(tmp_path):
    for gamma, said in ((1.0, True), (0.45455, False)):
        info = PngImagePlugin.PngInfo()
        info.add(b"gAMA", struct.pack(">I", round(gamma * 100000)))
        picture = read_picture(save(tmp_path / "a.png", PHOTO, pnginfo=info))
        assert picture.notes == (
            (f"its gamma of {gamma:g} is not followed, its values are taken as sRGB",)
            if said
            else ()
        )


def test_preview_of_a_raw_file_is_said(tmp_path):
    for tag, value in ((254, 1), (50706, b"\1\4\0\0")):
        tags = ImageFileDirectory_v2()
        tags[tag] = value
        picture = read_picture(save(tmp_path / "a.dng", PHOTO, format="TIFF", tiffinfo=tags))
        assert picture.notes == (
            "is a raw file or a preview: only its small picture of 6 x 4 is read",
        )
        write_picture(tmp_path / "b.tif", PHOTO, tags=picture.tags, overwrite=True)
        assert read_picture(tmp_path / "b.tif").notes == ()


def test_large_texts_and_profiles_of_a_png(tmp_path):
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


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_without_end(tmp_path, progressive):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / "a.jpg", noise, progressive=progressive)
    whole, data = read_picture(path), path.read_bytes()
    assert whole.notes == ()
    path.write_bytes(data[:-2])
    picture = read_picture(path)
    assert picture.notes == ("has no end marker, but all its rows are there",)
    assert (picture.rgb == whole.rgb).all()
    path.write_bytes(data[:-10])
    with pytest.raises(PictureError, match="truncated"):
        read_picture(path)


def test_damaged_scan_of_a_jpeg_is_said(tmp_path):
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    said = 0
    for number in range(20):
        path = tmp_path / f"{number}.jpg"
        noise.resize((160, 120), Image.Resampling.BICUBIC).save(path, quality=90)
        assert read_picture(path).notes == ()
        data = bytearray(path.read_bytes())
        place = random.integers(len(data) // 2, len(data) - 200)
        data[place : place + 40] = random.integers(1, 255, 40, dtype=np.uint8).tobytes()
        path.write_bytes(data)
        said += any("damaged" in note for note in read_picture(path).notes)
    assert said >= 8  # where the damage does not change how many pixels there are, nothing shows it
    path.write_bytes(data[:-1000] + b"\xff\xd9")  # cut, with an end
    assert "damaged" in read_picture(path).notes[0]


def test_no_folder_for_temporary_files(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise FileNotFoundError(2, "No usable temporary directory found")

    path = save(tmp_path / "a.tif", PHOTO)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert (read_picture(path).rgb == PHOTO).all()


# Reading: what is no picture


def test_not_a_picture(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    cases = {
        "text.png": "is not a picture",
        "empty.png": "the file is empty",
        "none.png": "No such file",
        ".": "is a folder",
    }
    for name, reason in cases.items():
        with pytest.raises(PictureError, match=reason) as caught:
            read_picture(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(PictureError, match="null"):
        read_picture("a\0b.png")
    with pytest.raises(PictureError, match="not a regular file"):
        read_picture(os.devnull)


@pytest.mark.parametrize(
    "ending", ["png", "jpg", "tif", "webp", "gif", "bmp", "tga", "ppm", "jp2", "avif", "ico"]
)
def test_damaged_files_are_one_clear_error_or_read(tmp_path, ending, monkeypatch):
    needs(ending)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1_000_000)  # damaged sizes: no gigabytes for a test
    random = np.random.default_rng(0)
    path = tmp_path / f"x.{ending}"
    noise = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    whole = save(path, noise).read_bytes()
    damaged = [whole[: int(len(whole) * part)] for part in (0.02, 0.1, 0.5, 0.9)]
    for _ in range(40):
        changed = bytearray(whole)
        for place in random.integers(0, min(len(whole), 400), 3):
            changed[place] = random.integers(256)
        damaged.append(bytes(changed))
    messages = []
    for data in damaged:
        path.write_bytes(data)
        try:
            read_picture(path)
        except PictureError as error:
            messages.append(str(error))
    assert messages
    assert all(str(path) in message and "\n" not in message for message in messages)


def test_libtiff_does_not_print(tmp_path, capfd):
    """Damaged compressed TIFFs: libtiff writes to the process's stderr; it becomes a note or an error."""
    random = np.random.default_rng(0)
    path = tmp_path / "x.tif"
    outcomes = set()
    for compression in ("group4", "tiff_lzw", "tiff_adobe_deflate"):
        image = Image.fromarray(random.integers(0, 256, (60, 60), dtype=np.uint8))
        image.convert("1" if compression == "group4" else "L").save(path, compression=compression)
        data = bytearray(path.read_bytes())
        for place in (30, 60, 100):
            data[place] ^= 255
            path.write_bytes(data)
            try:
                outcomes.update(read_picture(path).notes)
            except PictureError as error:
                outcomes.add(str(error))
    assert capfd.readouterr().err == ""
    assert any("damaged" in outcome for outcome in outcomes)


def test_truncated_is_refused(tmp_path):
    for ending in ("png", "jpg", "tif", "webp"):
        path = save(
            tmp_path / f"x.{ending}",
            np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8),
        )
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(PictureError):
            read_picture(path)


def test_large_scans_pass_and_absurd_ones_do_not(tmp_path, monkeypatch):
    path = tmp_path / "scan.png"
    Image.new("1", (20000, 10000)).save(path)
    assert read_picture(path).width == 20000
    monkeypatch.setattr(pictures, "MAX_PIXELS", 50_000_000)
    with pytest.raises(PictureError, match="million pixels"):
        read_picture(path)
    Image.new("1", (9000, 9000)).save(path)
    with pytest.raises(PictureError, match="50 million"):
        read_picture(path)
    assert Image.MAX_IMAGE_PIXELS == 89478485  # Pillow's own limit is left as it was


# Writing


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG", "webp", "tif", "tiff"])
def test_write_and_read_again(tmp_path, ending):
    image = np.asarray(Image.fromarray(PHOTO).resize((60, 40)))
    alpha = np.asarray(Image.fromarray(255 - RAMP).resize((60, 40)))
    tags = {int(BASE.Artist): "Ann", int(BASE.ImageDescription): "a wall"}
    tags[int(ExifTags.IFD.Exif)] = {int(BASE.ExifImageWidth): 6, int(BASE.ExifImageHeight): 4, int(BASE.ColorSpace): 65535,
                                    int(BASE.ExposureTime): 0.01}  # fmt: skip
    tags[int(ExifTags.IFD.GPSInfo)] = {1: "N", 2: (1.0, 2.0, 3.0)}
    path = tmp_path / f"out.{ending}"
    notes = write_picture(path, image, alpha=alpha, tags=tags, dpi=(1200, 600))
    assert names(tmp_path) == [path.name]
    jpeg = ending in ("jpg", "JPEG")
    assert notes == (["JPEG has no transparency, its see-through parts are white"] if jpeg else [])
    picture = read_picture(path)
    assert (picture.alpha is None) == jpeg
    if not jpeg:
        assert (picture.alpha == alpha).all()
    seen = (
        (image * (alpha / 255)[..., None] + 255 * (1 - alpha / 255)[..., None]) if jpeg else image
    )
    assert np.abs(picture.rgb.astype(float) - seen).mean() < (
        2 if ending in ("jpg", "JPEG", "webp") else 0.001
    )
    assert picture.dpi == pytest.approx((1200, 600), abs=0.1)
    assert picture.tags[BASE.Artist] == "Ann"
    assert picture.tags[ExifTags.IFD.GPSInfo][2] == (1.0, 2.0, 3.0)
    with Image.open(path) as again:
        assert again.info["icc_profile"] == srgb_profile()
        exif = again.getexif()
        assert exif[BASE.Orientation] == 1
        details = exif.get_ifd(ExifTags.IFD.Exif)
        assert (
            details[BASE.ExifImageWidth],
            details[BASE.ExifImageHeight],
            details[BASE.ColorSpace],
        ) == (60, 40, 1)
        assert float(details[BASE.ExposureTime]) == pytest.approx(0.01)


@pytest.mark.parametrize("source", ["jpg", "tif", "png", "webp"])
@pytest.mark.parametrize("ending", ["jpg", "tif", "png", "webp"])
def test_metadata_of_any_format_goes_into_any_format(tmp_path, source, ending):
    exif = Image.Exif()
    exif[BASE.Make], exif[BASE.Orientation] = "Camera", 6
    exif[ExifTags.IFD.Exif] = {int(BASE.UserComment): b"ASCII\0\0\0hello"}
    path = tmp_path / f"in.{source}"
    Image.fromarray(PHOTO).save(path, exif=exif.tobytes(), dpi=(300, 300))
    picture = read_picture(path)
    out = tmp_path / f"out.{ending}"
    assert write_picture(out, picture.rgb, tags=picture.tags, dpi=(600, 600)) == []
    again = read_picture(out)
    assert (again.width, again.height) == (4, 6)
    assert again.tags[BASE.Make] == "Camera"
    assert again.tags[ExifTags.IFD.Exif][BASE.UserComment] == b"ASCII\0\0\0hello"
    assert again.dpi == pytest.approx((600, 600), abs=0.1)
    assert again.notes == ()


def test_stale_thumbnail_is_dropped(tmp_path):
    small = io.BytesIO()
    Image.fromarray(PHOTO).save(small, "JPEG")
    entries = (
        [(0x0112, 3, 1, 1)],
        [(0x0103, 3, 1, 6), (0x0201, 4, 1, 68), (0x0202, 4, 1, len(small.getvalue()))],
    )
    first, second = (
        struct.pack("<H", len(d)) + b"".join(struct.pack("<HHII", *e) for e in d) for d in entries
    )
    exif = (
        b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + struct.pack("<I", 26) + second + bytes(4)
    )
    exif = exif.ljust(6 + 68, b"\0") + small.getvalue()
    path = save(tmp_path / "in.jpg", PHOTO, exif=exif)
    with Image.open(path) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1)  # it is there in the input
    picture = read_picture(path)
    write_picture(tmp_path / "out.jpg", picture.rgb, tags=picture.tags | {int(BASE.Make): "x"})
    with Image.open(tmp_path / "out.jpg") as image:
        assert not image.getexif().get_ifd(ExifTags.IFD.IFD1)
    assert (tmp_path / "out.jpg").read_bytes().count(b"\xff\xd8\xff") == 1


def test_exif_that_cannot_be_kept_is_said(tmp_path):
    tags = {int(BASE.Make): "Camera", int(BASE.Artist): object()}
    assert "Artist" in write_picture(tmp_path / "a.png", PHOTO, tags=tags)[0]
    assert read_picture(tmp_path / "a.png").tags[BASE.Make] == "Camera"
    tags = {int(BASE.ImageDescription): "x" * 70000}
    assert "does not fit" in write_picture(tmp_path / "a.jpg", PHOTO, tags=tags)[0]
    assert write_picture(tmp_path / "b.png", PHOTO, tags=tags) == []


def test_broken_exif_is_no_obstacle(tmp_path):
    for number, exif in enumerate(
        [
            b"Exif\0\0rubbish",
            b"Exif\0\0II*\0\xff\xff\xff\xff",
            b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01",
        ]
    ):
        picture = read_picture(save(tmp_path / f"{number}.jpg", PHOTO, exif=exif))
        write_picture(tmp_path / f"{number}.png", picture.rgb, tags=picture.tags)
    exif = Image.Exif()
    exif[BASE.Orientation] = 77
    picture = read_picture(save(tmp_path / "odd.png", PHOTO, exif=exif))
    assert "orientation 77" in picture.notes[0]
    assert (picture.rgb == PHOTO).all()


def test_same_bytes_each_time(tmp_path):
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / name, PHOTO)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_planes_apart_are_written_alike(tmp_path):
    apart = np.ascontiguousarray(PHOTO.transpose(2, 0, 1)).transpose(1, 2, 0)
    write_picture(tmp_path / "a.png", apart)
    assert (read_picture(tmp_path / "a.png").rgb == PHOTO).all()


def test_refusals(tmp_path):
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
    assert names(tmp_path) == []


def test_existing_file_is_kept(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("mine")
    with pytest.raises(PictureError, match="exists already"):
        write_picture(path, PHOTO)
    assert path.read_text() == "mine"
    write_picture(path, PHOTO, overwrite=True)
    assert read_picture(path).width == 6


@pytest.mark.parametrize(
    "interruption", [KeyboardInterrupt, OSError(28, "No space left on device"), MemoryError]
)
def test_never_half_written(tmp_path, monkeypatch, interruption):
    def stop(self, file, *arguments, **options):
        file.write(b"half")
        raise interruption

    path = tmp_path / "a.png"
    path.write_text("old")
    monkeypatch.setattr(Image.Image, "save", stop)
    expected = PictureError if isinstance(interruption, OSError) else interruption
    with pytest.raises(expected):
        write_picture(path, PHOTO, overwrite=True)
    assert names(tmp_path) == ["a.png"]
    assert path.read_text() == "old"


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions and links")
def test_permissions_and_links(tmp_path):
    path, link = tmp_path / "a.png", tmp_path / "link.png"
    link.symlink_to(path)
    write_picture(link, PHOTO)
    assert link.is_symlink()
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_no_warning_escapes(tmp_path):
    """Pillow warns of odd files; the reader turns that into notes."""
    path = save(tmp_path / "a.jpg", PHOTO, exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0\x12\x01")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_picture(path)


def test_pictures_read_by_two_threads_leave_stderr_alone(tmp_path):
    """TIFFs are decoded with stderr captured; the descriptor is the same file afterwards."""
    path = save(tmp_path / "a.tif", PHOTO)
    before = os.fstat(2)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: read_picture(path), range(40)))
    after = os.fstat(2)
    assert (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino)
