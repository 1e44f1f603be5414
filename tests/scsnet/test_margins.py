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


@pytest.fixture
def photo(root):
    image = Image.open(root / "samples" / "Alps.jpg").convert("L").resize((120, 90))
    return torch.from_numpy(np.array(image))[None, None].float() / 255


def luminance(rgb):
    return normalize_lab(rgb_to_lightness(rgb), CONFIG)


@pytest.mark.parametrize("level", [1.0, 0.0, 0.5, 0.85])
@pytest.mark.parametrize("sides", [(5, 5, 5, 5), (1, 1, 1, 1), (0, 7, 0, 0), (3, 0, 9, 12)])
def test_margins_are_found_to_the_pixel(photo, level, sides):
    left, _, top, _ = sides
    framed = F.pad(photo, sides, value=level)
    assert find_margins(luminance(framed), CONFIG) == (top, left, 90, 120)


def test_margins_with_the_noise_of_a_scanner_are_found(photo):
    torch.manual_seed(0)
    framed = F.pad(photo, (8, 8, 8, 8), value=0.96)
    framed = (framed + 0.01 * torch.randn_like(framed)).clamp(0, 1)
    assert find_margins(luminance(framed), CONFIG) == (8, 8, 90, 120)


def test_real_photos(root):
    found = {}
    for name in ("Alps.jpg", "Colorado1941.png"):
        rgb = torch.from_numpy(np.array(Image.open(root / "samples" / name).convert("RGB")))
        found[name] = find_margins(luminance(rgb.permute(2, 0, 1)[None].float() / 255), CONFIG)
    assert found["Alps.jpg"] is None
    # a white border of five rows at the top and a black one at the bottom
    assert found["Colorado1941.png"] == (5, 0, 458, 600)


def test_skies_and_flat_fields_are_no_margins(photo):
    sky = torch.linspace(0.95, 0.75, 40).view(1, 1, 40, 1).expand(1, 1, 40, 120)
    assert find_margins(luminance(torch.cat([sky, photo], 2)), CONFIG) is None
    for level in (0.0, 0.5, 1.0):
        assert find_margins(luminance(torch.full((1, 1, 64, 64), level)), CONFIG) is None
    wide = F.pad(photo, (0, 0, 60, 0), value=1.0)  # more than a fifth of the height
    assert find_margins(luminance(wide), CONFIG) is None
    assert find_margins(luminance(torch.ones(1, 1, 8, 8)), CONFIG) is None


def test_a_batch_shares_what_all_pictures_have(photo):
    other = photo.flip(3)
    pictures = torch.cat(
        [F.pad(photo, (4, 4, 4, 4), value=1.0), F.pad(other, (6, 2, 6, 2), value=0.0)]
    )
    assert find_margins(luminance(pictures), CONFIG) == (4, 4, 92, 122)


def test_colours_inside_are_those_of_the_photo_alone(tiny_net, photo):
    small = F.interpolate(photo, (40, 48), mode="area")
    framed = F.pad(small, (3, 5, 4, 6), value=1.0)
    alone = encode_picture(tiny_net, small)
    features = encode_picture(tiny_net, framed)
    assert features.inside == (4, 3, 40, 48)
    assert torch.allclose(features.color, alone.color, atol=1e-5)
    rgb = render(tiny_net, features, (100, 112))
    ab = rgb_to_lab(rgb)[:, 1:]
    rows, columns = (slice(round(a * 2), round(b * 2)) for a, b in ((4, 44), (3, 51)))
    inside = torch.zeros(100, 112, dtype=torch.bool)
    inside[rows, columns] = True
    assert ab[..., ~inside].abs().max() < 0.5
    assert ab[..., inside].abs().mean() > 1
    # away from the border, where psi_E sees the margin, the result is the photo's own
    expected = render(tiny_net, alone, (80, 96))
    found = rgb[..., 8:88, 6:102]
    assert (found - expected)[..., 16:-16, 16:-16].abs().max() < 0.02
    whole = encode_picture(tiny_net, framed, inside=None)
    assert whole.inside is None
    assert not torch.allclose(render(tiny_net, whole, (100, 112)), rgb, atol=1e-2)


def test_windows_blocks_and_smaller_results_equal_the_whole(tiny_net, photo):
    framed = F.pad(F.interpolate(photo, (40, 48), mode="area"), (3, 5, 4, 6), value=1.0)
    features = encode_picture(tiny_net, framed)
    whole = render(tiny_net, features, (75, 90))
    part = render(tiny_net, features, (75, 90), (3, 2, 40, 50))
    assert torch.allclose(part, whole[..., 3:43, 2:52], atol=1e-4)
    tiles = render(tiny_net, features, (75, 90), tile=16)
    assert torch.allclose(tiles, whole, atol=1e-3)
    small = rgb_to_lab(render(tiny_net, features, (25, 28)))[:, 1:]
    assert small[..., :2, :].abs().max() < 0.5
    assert features.to("cpu").inside == features.inside


def test_points_of_the_attention_are_those_of_the_picture(tiny_net, photo):
    small = F.interpolate(photo, (40, 48), mode="area")
    reference = torch.rand(1, 3, 24, 24)
    framed = F.pad(small, (8, 8, 8, 8), value=1.0)
    alone = encode_picture(tiny_net, small, [reference])
    features = encode_picture(tiny_net, framed, [reference])
    (expected,) = tiny_net.attention(alone, [(0.25, 0.5)])
    (got,) = tiny_net.attention(features, [((0.25 * 48 + 8) / 64, 0.5)])
    assert torch.allclose(got, expected, atol=1e-5)
