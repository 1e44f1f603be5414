"""Adobe RGB that only EXIF tells, against the formulas of its standard."""

import numpy as np
import pytest
from PIL import ExifTags, Image
from skimage.color import xyz2rgb

from scsnet.pictures import read_picture, write_picture
from scsnet.pictures.exif import srgb_profile

BASE, IFD = ExifTags.Base, ExifTags.IFD
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
    """Fields of these colours under the given tags, as read from a file."""

    def build(name, space, interop, **options):
        exif = Image.Exif()
        exif[IFD.Exif] = {int(BASE.ColorSpace): space, int(IFD.Interop): {1: interop}}
        if name.endswith("jpg"):
            options |= {"quality": 100, "subsampling": 0}
        pixels = COLORS.astype(np.uint8)[None].repeat(16, 0).repeat(16, 1)
        Image.fromarray(pixels).save(tmp_path / name, exif=exif.tobytes(), **options)
        return read_picture(tmp_path / name)

    return build


def middles(picture):
    return picture.rgb[8, 8::16].astype(int)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_it_becomes_srgb(photo, tmp_path, name):
    picture = photo(name, 65535, "R03")
    expected = 255 * xyz2rgb((COLORS / 255) ** (563 / 256) @ TO_XYZ.T)
    assert np.abs(middles(picture) - expected).max() < 2.5
    assert np.abs(middles(picture) - COLORS).max() > 20
    assert picture.notes == ()
    write_picture(tmp_path / "b.jpg", picture.rgb, tags=picture.tags)
    details = read_picture(tmp_path / "b.jpg").tags[IFD.Exif]
    assert (details[BASE.ColorSpace], details[IFD.Interop][1]) == (1, "R98")


def test_other_tags_and_profiles_are_followed(photo):
    for picture in (
        photo("a.jpg", 1, "R03"),
        photo("a.jpg", 65535, "R98"),
        photo("a.jpg", 65535, "R03", icc_profile=srgb_profile()),
    ):
        assert np.abs(middles(picture) - COLORS).max() <= 2
