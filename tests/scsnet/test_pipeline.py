"""The functions that applications call: pictures in, pictures out."""

import pytest
import torch
from einops import reduce

from scsnet import encode_picture, render
from scsnet.color import denormalize_lab, lab_to_rgb, rgb_to_lab, rgb_to_lightness
from scsnet.resample import resample_bicubic


@pytest.mark.parametrize(
    ("size", "factor"),
    [((99, 75), (1, 1)), ((21, 17), (3, 3)), ((40, 30), (2, 2)), ((7, 90), (9, 1)), ((1, 1), (60, 50))],
)  # fmt: skip
def test_render_is_decode_in_rgb_and_averages_for_smaller_results(tiny_net, size, factor):
    features = encode_picture(tiny_net, torch.rand(2, 3, 60, 50))
    down, across = factor
    fine = tiny_net.decode(features, (size[0] * down, size[1] * across))
    means = reduce(fine, "b c (h d) (w a) -> b c h w", "mean", d=down, a=across)
    expected = lab_to_rgb(denormalize_lab(means, tiny_net.config), clip=True)
    assert torch.allclose(render(tiny_net, features, size), expected, atol=1e-5)
    whole = render(tiny_net, features, size, dtype=torch.uint8)
    assert whole.dtype == torch.uint8
    assert (whole.float() / 255 - expected).abs().max() <= 0.5 / 255 + 1e-5
    calls = []
    tiled = render(tiny_net, features, size, tile=13, progress=lambda *call: calls.append(call))
    assert torch.allclose(tiled, expected, atol=1e-5)
    assert calls == [(done + 1, len(calls)) for done in range(len(calls))]
    if min(size) > 10:
        part = render(tiny_net, features, size, (3, 5, 11, 10))
        assert torch.allclose(part, expected[..., 3:14, 5:15], atol=1e-5)


def test_only_the_luminance_of_a_colour_picture_counts(tiny_net):
    rgb = torch.rand(1, 3, 16, 16)
    gray = lab_to_rgb(rgb_to_lab(rgb) * torch.tensor([1.0, 0, 0])[:, None, None])[:, :1]
    color, plain = (render(tiny_net, encode_picture(tiny_net, x), (32, 32)) for x in (rgb, gray))
    assert (color - plain).abs().max() < 2e-3


def test_strength_multiplies_chroma(tiny_net):
    features = encode_picture(tiny_net, torch.rand(1, 1, 16, 16))
    none, half, full = (
        rgb_to_lab(render(tiny_net, features, (16, 16), strength=s))[:, 1:] for s in (0, 0.05, 0.1)
    )
    assert none.abs().max() < 0.1
    inside = full.abs().amax(1) < 20  # of the gamut
    ratio = half.norm(dim=1)[inside].sum() / full.norm(dim=1)[inside].sum()
    assert 0.45 < ratio < 0.55


def test_luminance_of_the_input_or_of_another_picture(tiny_net):
    rgb = torch.rand(1, 3, 30, 26) * 0.6 + 0.2
    features = encode_picture(tiny_net, rgb)
    other = torch.rand(1, 1, 90, 91) * 60 + 20
    for luminance, expected in (("input", rgb_to_lightness(rgb)), (other, other)):
        options = {"luminance": luminance, "strength": 0.0}
        whole = render(tiny_net, features, (61, 47), **options)
        assert (rgb_to_lightness(whole) - resample_bicubic(expected, (61, 47))).abs().max() < 0.05
        part = render(tiny_net, features, (61, 47), (9, 8, 40, 30), **options)
        assert torch.allclose(part, whole[..., 9:49, 8:38], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_pictures_of_any_float_type_may_overshoot_a_little(tiny_net, dtype):
    rgb = (torch.rand(1, 3, 8, 8) * 1.2 - 0.1).to(dtype)
    assert encode_picture(tiny_net, rgb, [rgb]).color.isfinite().all()
