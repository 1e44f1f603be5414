"""The shipped weights on real photos: that they colour, and how well. Bands are wide enough for better weights."""

import numpy as np
import pytest
import torch
from PIL import Image

from scsnet import checkpoint, encode_picture, render
from scsnet.color import normalize_lab, rgb_to_gray, rgb_to_lab, rgb_to_lightness

color = pytest.importorskip("skimage.color")


@pytest.fixture(scope="module")
def bundled():
    return checkpoint.load("bundled", dtype=torch.float32)


@pytest.fixture(scope="module")
def samples():
    """Name -> sRGB (1, 3, 96, 96 or 64 x 64)."""
    folder = checkpoint.BUNDLED.parents[2] / "samples"

    def read(name, side):
        image = Image.open(folder / name).convert("RGB").resize((side, side), Image.BICUBIC)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255

    return {"Colorado": read("Colorado1941.png", 96), "Alps": read("Alps.jpg", 96)}


def colorize(net, photo, references=(), size=(96, 96)):
    """LAB (H, W, 3) by scikit-image of the result for a photo without its colours."""
    rgb = render(net, encode_picture(net, rgb_to_gray(photo), references), size)
    return color.rgb2lab(rgb[0].permute(1, 2, 0).float().numpy())


def check_quality(net, samples):
    """Raise AssertionError for weights that do not colour as well as expected."""
    target = color.rgb2lab(samples["Alps"][0].permute(1, 2, 0).numpy())
    gray_error = np.abs(target[..., 1:]).mean()
    automatic = colorize(net, samples["Alps"])
    own = colorize(net, samples["Alps"], [samples["Alps"].flip(3)])
    assert np.abs((automatic - target)[..., 1:]).mean() < 0.85 * gray_error
    assert np.abs((own - target)[..., 1:]).mean() < 0.4 * gray_error
    assert np.abs((own - target)[..., 0]).mean() < 1.5
    forest, sky = automatic[70:, :, 1:].mean((0, 1)), automatic[:20, :, 1:].mean((0, 1))
    assert forest[1] > 5  # the meadow is yellow or green, not gray or blue
    assert sky[1] < forest[1]
    old = colorize(net, samples["Colorado"], [samples["Alps"]])
    assert 4 < np.hypot(old[..., 1], old[..., 2]).mean() < 40


def test_the_bundled_weights_colour(bundled, samples):
    check_quality(bundled, samples)


def test_weights_without_colour_are_noticed(samples):
    damaged = checkpoint.load("bundled", dtype=torch.float32)
    last = damaged.head.linears[-1]
    with torch.no_grad():
        for parameter in (last.weight, last.bias):
            parameter[1:] = 0
    with pytest.raises(AssertionError):
        check_quality(damaged, samples)


def test_the_colours_of_an_editor_come_back_to_the_scan(bundled):
    """The reference is a smaller, shifted and lighter colour version, as image editors make them."""
    folder = checkpoint.BUNDLED.parents[2] / "web" / "samples"
    truth, editor = (Image.open(folder / f"scsnet_lake{end}.jpg") for end in ("", "_editor"))
    photo, reference = (
        torch.from_numpy(np.array(p)).permute(2, 0, 1)[None] / 255 for p in (truth, editor)
    )
    found = colorize(bundled, photo, [reference], photo.shape[2:])
    target = color.rgb2lab(np.array(truth))[..., 1:]
    pasted = color.rgb2lab(np.array(editor.resize(truth.size, Image.BICUBIC)))[..., 1:]
    error = np.abs(found[..., 1:] - target).mean()
    assert error < 0.35 * np.abs(target).mean()
    assert error < 0.8 * np.abs(pasted - target).mean()


@torch.inference_mode()
def test_coverage_tells_which_reference_serves_and_what_it_lacks(bundled):
    """A mirrored copy against another photo, and a copy without its right half, cut away or masked."""
    folder = checkpoint.BUNDLED.parents[2] / "web" / "samples"
    photos = [
        torch.from_numpy(np.array(Image.open(folder / f"scsnet_{name}.jpg").resize((120, 96))))
        .permute(2, 0, 1)[None]
        .div(255)
        for name in ("alps", "autumn", "lake")
    ]
    for photo, other in zip(photos, photos[1:] + photos[:1], strict=True):

        def cover(*references, masks=(), photo=photo):
            encoded = bundled.encode_reference(
                [normalize_lab(rgb_to_lab(r), bundled.config) for r in references], masks=masks
            )
            luminance = normalize_lab(rgb_to_lightness(photo), bundled.config)
            uncovered, parts = bundled.coverage(bundled.encode(luminance, encoded))
            return uncovered[0, 0], parts[0]

        own, foreign = cover(photo.flip(3), other)[1]
        assert own > 3 * foreign
        assert cover(photo.flip(3))[1] > 1.5 * cover(other)[1]
        left = torch.zeros(1, 1, 96, 120)
        left[..., :60] = 1
        for uncovered, _ in (cover(photo[..., :60]), cover(photo, masks=[left])):
            assert uncovered[:, 64:].mean() > uncovered[:, :56].mean() + 0.03


@pytest.mark.parametrize("with_reference", [False, True])
def test_bfloat16_is_visually_equal(bundled, samples, with_reference):
    references = [samples["Alps"]] if with_reference else []
    exact = colorize(bundled, samples["Colorado"], references, (250, 250))
    net = checkpoint.load("bundled", dtype=torch.bfloat16)
    fast = colorize(net, samples["Colorado"], references, (250, 250))
    assert 0 < color.deltaE_ciede2000(exact, fast).mean() < 1
