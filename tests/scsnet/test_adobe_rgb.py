"""Adobe RGB that only EXIF tells, against the formulas of its standard."""

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from scsnet.pictures import read_picture
from scsnet.pictures.exif import srgb_profile

skimage_color = pytest.importorskip("skimage.color")

# Adobe RGB (1998) Color Image Encoding, 4.3.5.3: linear RGB to XYZ, D65
TO_XYZ = np.array(
    [
        [0.57667, 0.18556, 0.18823],
        [0.29734, 0.62736, 0.07529],
        [0.02703, 0.07069, 0.99134],
    ]
)
COLORS = np.array([[200, 100, 50], [90, 140, 80], [128, 128, 128], [20, 30, 160], [255, 255, 255]])


@pytest.fixture
def photo(tmp_path):
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool, which sets the tags, is not installed")

    def build(name, *tags, **options):
        path = tmp_path / name
        colors = COLORS.astype(np.uint8)[None].repeat(16, 0).repeat(16, 1)
        if path.suffix == ".jpg":
            options |= {"quality": 100, "subsampling": 0}
        Image.fromarray(colors).save(path, **options)
        arguments = ["-n", *(f"-{tag}" for tag in tags)]
        subprocess.run(["exiftool", "-q", "-overwrite_original", *arguments, path], check=True)
        return read_picture(path)

    return build


def middles(picture):
    return picture.rgb[8, 8::16].astype(int)


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_it_is_converted(photo, name):
    picture = photo(name, "ColorSpace=65535", "InteropIndex=R03")
    expected = 255 * skimage_color.xyz2rgb((COLORS / 255) ** (563 / 256) @ TO_XYZ.T)
    assert np.abs(middles(picture) - expected).max() < 2.5
    assert np.abs(middles(picture) - COLORS).max() > 20
    assert picture.notes == ()


def test_other_tags_and_profiles_are_followed(photo):
    for picture in (
        photo("a.jpg", "ColorSpace=1", "InteropIndex=R03"),
        photo("a.jpg", "ColorSpace=65535", "InteropIndex=R98"),
        photo("a.jpg", "ColorSpace=65535", "InteropIndex=R03", icc_profile=srgb_profile()),
    ):
        assert np.abs(middles(picture) - COLORS).max() <= 2
