"""Even margins of scans: found exactly, or not at all, and kept out of the colours."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from scsnet import SCSNetConfig, encode_picture, render
from scsnet.color import normalize_lab, rgb_to_lab, rgb_to_lightness
from scsnet.margins import find_margins

CONFIG = SCSNetConfig()


def read(path):
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).movedim(2, 0)[None] / 255


@pytest.fixture
def photo(root):
    return F.interpolate(read(root / "samples" / "Alps.jpg")[:, :1], (90, 120), mode="area")


def find(rgb):
    return find_margins(normalize_lab(rgb_to_lightness(rgb), CONFIG), CONFIG)


@pytest.mark.parametrize("level", [1.0, 0.0, 0.5, 0.85])
@pytest.mark.parametrize("sides", [(5, 5, 5, 5), (1, 1, 1, 1), (0, 7, 0, 0), (3, 0, 9, 12)])
def test_margins_are_found_to_the_pixel(photo, level, sides):
    left, _, top, _ = sides
    assert find(F.pad(photo, sides, value=level)) == (top, left, 90, 120)


def test_margins_of_scans_and_real_photos_are_found(root, photo):
    torch.manual_seed(0)
    framed = F.pad(photo, (8, 8, 8, 8), value=0.96)
    noisy = (framed + 0.01 * torch.randn_like(framed)).clamp(0, 1)
    assert find(noisy) == (8, 8, 90, 120)
    assert find(read(root / "samples" / "Alps.jpg")) is None
    # A white border of five rows at the top and a black one at the bottom.
    assert find(read(root / "samples" / "Colorado1941.png")) == (5, 0, 458, 600)


def test_skies_and_flat_fields_are_no_margins(photo):
    sky = torch.linspace(0.95, 0.75, 40).view(1, 1, 40, 1).expand(1, 1, 40, 120)
    assert find(torch.cat([sky, photo], 2)) is None
    for level in (0.0, 0.5, 1.0):
        assert find(torch.full((1, 1, 64, 64), level)) is None
    assert find(F.pad(photo, (0, 0, 60, 0), value=1.0)) is None  # more than a fifth of the height
    assert find(torch.ones(1, 1, 8, 8)) is None


def test_a_batch_has_the_margins_of_all_its_pictures(photo):
    first = F.pad(photo, (4, 4, 4, 4), value=1.0)
    second = F.pad(photo.flip(3), (6, 2, 6, 2), value=0.0)
    assert find(torch.cat([first, second])) == (4, 4, 92, 122)


@pytest.fixture
def small(photo):
    return F.interpolate(photo, (40, 48), mode="area")


def test_colours_inside_are_those_of_the_photo_alone(tiny_net, small):
    framed = F.pad(small, (3, 5, 4, 6), value=1.0)
    alone, features = encode_picture(tiny_net, small), encode_picture(tiny_net, framed)
    assert features.inside == (4, 3, 40, 48)
    assert torch.allclose(features.color, alone.color, atol=1e-5)
    rgb = render(tiny_net, features, (100, 112))
    ab = rgb_to_lab(rgb)[:, 1:]
    inside = torch.zeros(100, 112, dtype=torch.bool)
    inside[8:88, 6:102] = True
    assert ab[..., ~inside].abs().max() < 0.5
    assert ab[..., inside].abs().mean() > 1
    # Near the border the texture encoder sees the margin; further inside, the result is that of the photo alone.
    expected = render(tiny_net, alone, (80, 96))
    assert (rgb[..., 8:88, 6:102] - expected)[..., 16:-16, 16:-16].abs().max() < 0.02
    whole = encode_picture(tiny_net, framed, inside=None)
    assert whole.inside is None
    assert not torch.allclose(render(tiny_net, whole, (100, 112)), rgb, atol=1e-2)


def test_windows_tiles_and_smaller_results_keep_the_margins(tiny_net, small):
    features = encode_picture(tiny_net, F.pad(small, (3, 5, 4, 6), value=1.0))
    whole = render(tiny_net, features, (75, 90))
    part = render(tiny_net, features, (75, 90), (3, 2, 40, 50))
    assert torch.allclose(part, whole[..., 3:43, 2:52], atol=1e-4)
    assert torch.allclose(render(tiny_net, features, (75, 90), tile=16), whole, atol=1e-3)
    reduced = rgb_to_lab(render(tiny_net, features, (25, 28)))[:, 1:]
    assert reduced[..., :2, :].abs().max() < 0.5


def test_points_of_the_attention_are_those_of_the_picture(tiny_net, small):
    reference = torch.rand(1, 3, 24, 24)
    alone = encode_picture(tiny_net, small, [reference])
    features = encode_picture(tiny_net, F.pad(small, (8, 8, 8, 8), value=1.0), [reference])
    (expected,) = tiny_net.attention(alone, [(0.25, 0.5)])
    (got,) = tiny_net.attention(features, [((0.25 * 48 + 8) / 64, 0.5)])
    assert torch.allclose(got, expected, atol=1e-5)
