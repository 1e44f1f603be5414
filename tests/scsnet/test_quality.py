"""The shipped weights on real photos: that they colour, and how well. The bounds leave room for other weights."""

import numpy as np
import pytest
import torch
from PIL import Image

from scsnet import checkpoint, encode_picture, render
from scsnet.color import rgb_to_gray

color = pytest.importorskip("skimage.color")


@pytest.fixture(scope="module")
def bundled():
    return checkpoint.load("bundled", dtype=torch.float32)


def read(root, name, size=None):
    image = Image.open(root / name).convert("RGB")
    image = image.resize(size or image.size, Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).movedim(2, 0)[None] / 255


@pytest.fixture
def samples(root):
    """The photo of the Alps in colour, and that of 1941."""
    return [read(root, f"samples/{name}", (96, 96)) for name in ("Alps.jpg", "Colorado1941.png")]


def to_lab(rgb):
    return color.rgb2lab(rgb[0].movedim(0, 2).float().numpy())


def colorize(net, photo, references=(), size=None):
    """LAB (H, W, 3) by scikit-image of the result for a photo without its colours."""
    features = encode_picture(net, rgb_to_gray(photo), references)
    return to_lab(render(net, features, size or photo.shape[2:]))


def test_colours_are_near_those_of_the_photo(bundled, samples):
    alps, colorado = samples
    target = to_lab(alps)
    gray_error = np.abs(target[..., 1:]).mean()
    automatic, own = colorize(bundled, alps), colorize(bundled, alps, [alps.flip(3)])
    assert np.abs((automatic - target)[..., 1:]).mean() < 0.85 * gray_error
    assert np.abs((own - target)[..., 1:]).mean() < 0.4 * gray_error
    assert np.abs((own - target)[..., 0]).mean() < 1.5
    meadow, sky = automatic[70:, :, 1:].mean((0, 1)), automatic[:20, :, 1:].mean((0, 1))
    assert meadow[1] > 5  # yellow or green, not gray or blue
    assert sky[1] < meadow[1]
    old = colorize(bundled, colorado, [alps])
    assert 4 < np.hypot(old[..., 1], old[..., 2]).mean() < 40


def test_colours_of_an_editor_come_back_to_the_scan(bundled, root):
    """The reference is a smaller, shifted and lighter colour version, as image editors make them."""
    photo, editor = (read(root, f"web/samples/scsnet_lake{end}.jpg") for end in ("", "_editor"))
    height, width = photo.shape[2:]
    pasted = to_lab(read(root, "web/samples/scsnet_lake_editor.jpg", (width, height)))
    target, found = to_lab(photo), colorize(bundled, photo, [editor])
    error = np.abs((found - target)[..., 1:]).mean()
    assert error < 0.35 * np.abs(target[..., 1:]).mean()
    assert error < 0.8 * np.abs((pasted - target)[..., 1:]).mean()


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "another"), [("alps", "autumn"), ("autumn", "lake"), ("lake", "alps")]
)
def test_coverage_tells_which_reference_serves_and_what_it_lacks(bundled, root, name, another):
    """A mirrored copy against another photo, and a copy without its right half, cut away or masked."""
    photo, other = (read(root, f"web/samples/scsnet_{n}.jpg", (120, 96)) for n in (name, another))

    def cover(*references, masks=()):
        features = encode_picture(bundled, rgb_to_gray(photo), references, reference_masks=masks)
        uncovered, parts = bundled.coverage(features)
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
    alps, colorado = samples
    references = [alps] if with_reference else []
    exact = colorize(bundled, colorado, references, (250, 250))
    fast = checkpoint.load("bundled", dtype=torch.bfloat16)
    found = colorize(fast, colorado, references, (250, 250))
    assert 0 < color.deltaE_ciede2000(exact, found).mean() < 1
