"""Colour hints: what is painted, and where."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from scsnet import encode_picture, render
from scsnet.hints import Hint, paint_hints, parse_hints


def lab(rgb):
    return rgb2lab(rgb[0].permute(1, 2, 0).numpy())


def test_the_text():
    hints = parse_hints("0.25, .5 #6b4A2b\n1,0 #fff 0.1; 0.5, 0.5 #010203 0.05 0.5\n")
    assert hints == [
        Hint(0.25, 0.5, (107, 74, 43)),
        Hint(1.0, 0.0, (255, 255, 255), 0.1),
        Hint(0.5, 0.5, (1, 2, 3), 0.05, 0.5),
    ]
    assert parse_hints(" \n;") == []
    for wrong in ("0.5 0.5 #6b4a2b", "0.5, 0.5 brown", "0.5, 0.5 #6b4a2", "0.1, 0.1 #fff 1 2 3"):
        with pytest.raises(ValueError, match=r"cannot read the hint .* for example"):
            parse_hints(wrong)


def test_discs_have_the_hues_and_the_photos_light():
    torch.manual_seed(0)
    photo = 0.3 + 0.4 * torch.rand(1, 3, 60, 80)
    hints = [Hint(0.25, 0.5, (150, 90, 60), 0.1), Hint(0.75, 0.25, (60, 110, 70), 0.05, 0.5)]
    painted, mask = paint_hints(photo, hints)
    assert painted.shape == (1, 3, 60, 80)
    rows, columns = np.mgrid[:60, :80] + 0.5
    discs = [np.hypot(columns - h.x * 80, rows - h.y * 60) <= h.radius * 60 for h in hints]
    assert np.array_equal(mask[0, 0].numpy() > 0, discs[0] | discs[1])
    got, before = lab(painted), lab(photo)
    assert np.abs(got[..., 0] - before[..., 0]).max() < 0.1
    for hint, disc in zip(hints, discs, strict=True):
        color = rgb2lab(np.array(hint.color, np.uint8)[None, None])[0, 0]
        assert np.abs(got[disc][:, 1:] - hint.strength * color[1:]).max() < 0.5
    assert np.abs(got[~(discs[0] | discs[1])][:, 1:]).max() < 0.5


def test_a_small_hint_marks_its_pixel_and_a_large_photo_is_reduced():
    _, mask = paint_hints(torch.rand(1, 1, 20, 30), [Hint(0.99, 0.0, (255, 0, 0), 1e-6)])
    assert mask.nonzero().tolist() == [[0, 0, 0, 29]]
    painted, mask = paint_hints(torch.rand(1, 1, 1000, 1500), [Hint(0.5, 0.5, (255, 0, 0))])
    assert painted.shape[2] * painted.shape[3] <= 1.02 * 512**2
    assert mask.sum() == pytest.approx(np.pi * (0.02 * mask.shape[2]) ** 2, rel=0.1)


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (Hint(1.1, 0.5, (0, 0, 0)), "x and y in 0..1, got 1.1, 0.5"),
        (Hint(0.5, 0.5, (0, 0, 0), 0.0), "radius above 0"),
        (Hint(0.5, 0.5, (0, 0, 0), 0.1, -1.0), "strength in 0..3"),
    ],
)
def test_hints_that_make_no_sense(hint, message):
    with pytest.raises(ValueError, match=message):
        paint_hints(torch.rand(1, 1, 8, 8), [hint])
    with pytest.raises(ValueError, match="at least one hint"):
        paint_hints(torch.rand(1, 1, 8, 8), [])


def test_the_network_takes_them(tiny_net):
    photo = torch.rand(1, 1, 24, 24)
    results = []
    for color in ((200, 40, 40), (40, 40, 200)):
        reference, mask = paint_hints(photo, [Hint(0.5, 0.5, color)])
        features = encode_picture(tiny_net, photo, [reference], reference_masks=[mask])
        results.append(render(tiny_net, features, (24, 24)))
    assert not torch.allclose(*results, atol=1e-3)
