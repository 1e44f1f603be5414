"""Damaged and truncated JPEGs, sequential and progressive, against an undamaged decode."""

import io

import numpy as np
import pytest
from PIL import Image

from scsnet.pictures import PictureError, read_picture
from scsnet.pictures.jpeg import BLURRED, DAMAGED, UNENDED

KINDS = {
    "sequential": {},
    "progressive": {"progressive": True},
    "gray": {},
    "restarts": {"restart_marker_rows": 2},
}


def encode(kind, seed=0, size=(160, 120), **options):
    """A JPEG of broad and fine detail."""
    random = np.random.default_rng(seed)
    noise = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    picture = np.asarray(noise.resize(size, Image.Resampling.BICUBIC)).astype(int)
    picture = (picture + random.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(picture)
    file = io.BytesIO()
    image.convert("L" if kind == "gray" else "RGB").save(
        file, "JPEG", **{"quality": 90} | KINDS[kind] | options
    )
    return file.getvalue()


def read(path, data):
    path.write_bytes(data)
    return read_picture(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"quality": 30}, {"subsampling": 0, "optimize": True}])
def test_sound_files_are_as_pillow_reads_them(tmp_path, kind, options):
    for number, size in enumerate([(160, 120), (1, 1), (9, 70), (17, 16)]):
        data = encode(kind, number, size, **options)
        for more in (b"", bytes(5), b"thumbnail \xff\xd8\xff\xd9"):  # behind the end
            picture = read(tmp_path / "a.jpg", data + more)
            assert picture.notes == ()
            expected = np.asarray(Image.open(io.BytesIO(data)))
            assert np.array_equal(picture.rgb.squeeze(), expected.squeeze())
        filled = data[:-2] + bytes(40) + data[-2:]  # as some cameras write
        assert read(tmp_path / "a.jpg", filled).notes == ()


@pytest.mark.parametrize("kind", ["sequential", "progressive"])
def test_overwritten_data_is_said(tmp_path, kind):
    random = np.random.default_rng(1)
    said = 0
    for seed in range(20):
        data = bytearray(encode(kind, seed))
        place = random.integers(len(data) // 4, len(data) - 200)
        data[place : place + 40] = random.integers(1, 255, 40, dtype=np.uint8).tobytes()
        try:
            said += DAMAGED in read(tmp_path / "a.jpg", bytes(data)).notes
        except PictureError:  # what libjpeg refuses by itself
            said += 1
    assert said >= 8  # the rest stands for as many pixels as before


@pytest.mark.parametrize("kind", KINDS)
def test_scans_cut_short_or_prolonged_are_said(tmp_path, kind):
    data = encode(kind)
    for end in (data[:-1000] + b"\xff\xd9", data[:-2] + bytes(range(1, 200)) + b"\xff\xd9"):
        assert read(tmp_path / "a.jpg", end).notes == (DAMAGED,)
    with pytest.raises(PictureError, match="truncated"):
        read(tmp_path / "a.jpg", data[:-1000])
    assert read(tmp_path / "a.jpg", data[:-2]).notes == (UNENDED,)


def test_missing_scans_are_said(tmp_path):
    data = encode("progressive")
    last = data.rfind(b"\xff\xda")
    cut = data[: data.rfind(b"\xff\xc4", 0, last)]  # with the tables of the last scan
    assert read(tmp_path / "a.jpg", cut + b"\xff\xd9").notes == (BLURRED,)
    with pytest.raises(PictureError, match="truncated"):
        read(tmp_path / "a.jpg", cut)
