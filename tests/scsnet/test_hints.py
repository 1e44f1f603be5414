"""Colour hints: what is painted, and where."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from scsnet.hints import Hint, paint_hints, parse_hints


def test_parsing():
    hints = parse_hints("0.25, .5 #6b4A2b\n1,0 #fff 0.1; 0.5, 0.5 #010203 0.05 0.5\n")
    assert hints == [
        Hint(0.25, 0.5, (107, 74, 43)),
        Hint(1.0, 0.0, (255, 255, 255), 0.1),
        Hint(0.5, 0.5, (1, 2, 3), 0.05, 0.5),
    ]
    assert parse_hints(" \n;") == []


@pytest.mark.parametrize(
    "text", ["0.5 0.5 #6b4a2b", "0.5, 0.5 brown", "0.5, 0.5 #6b4a2", "0.1, 0.1 #fff 1 2 3"]
)
def test_parsing_names_what_it_cannot_read(text):
    with pytest.raises(ValueError, match=r"cannot read the hint .* for example"):
        parse_hints(text)


def test_discs_have_the_colour_of_the_hint_and_the_lightness_of_the_photo():
    torch.manual_seed(0)
    photo = 0.3 + 0.4 * torch.rand(1, 3, 60, 80)
    hints = [Hint(0.25, 0.5, (150, 90, 60), 0.1), Hint(0.75, 0.25, (60, 110, 70), 0.05, 0.5)]
    painted, mask = paint_hints(photo, hints)
    rows, columns = np.mgrid[:60, :80] + 0.5
    discs = [np.hypot(columns - h.x * 80, rows - h.y * 60) <= h.radius * 60 for h in hints]
    marked = discs[0] | discs[1]
    assert np.array_equal(mask[0, 0].numpy() > 0, marked)
    got, before = (rgb2lab(rgb[0].movedim(0, 2).numpy()) for rgb in (painted, photo))
    assert np.abs(got[..., 0] - before[..., 0]).max() < 0.1
    for hint, disc in zip(hints, discs, strict=True):
        color = rgb2lab(np.array(hint.color, np.uint8)[None, None])[0, 0]
        assert np.abs(got[disc][:, 1:] - hint.strength * color[1:]).max() < 0.5
    assert np.abs(got[~marked][:, 1:]).max() < 0.5


def test_a_small_hint_marks_its_pixel_and_a_large_photo_is_reduced():
    _, mask = paint_hints(torch.rand(1, 1, 20, 30), [Hint(0.99, 0.0, (255, 0, 0), 1e-6)])
    assert mask.nonzero().tolist() == [[0, 0, 0, 29]]
    painted, mask = paint_hints(torch.rand(1, 1, 1000, 1500), [Hint(0.5, 0.5, (255, 0, 0))])
    assert painted.shape[2] * painted.shape[3] <= 1.02 * 512**2
    assert mask.sum() == pytest.approx(np.pi * (0.02 * mask.shape[2]) ** 2, rel=0.1)


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        ([Hint(1.1, 0.5, (0, 0, 0))], "x and y in 0..1, got 1.1, 0.5"),
        ([Hint(0.5, 0.5, (0, 0, 0), 0.0)], "radius above 0"),
        ([Hint(0.5, 0.5, (0, 0, 0), 0.1, -1.0)], "strength in 0..3"),
        ([], "at least one hint"),
    ],
)
def test_wrong_hints_are_named(hints, message):
    with pytest.raises(ValueError, match=message):
        paint_hints(torch.rand(1, 1, 8, 8), hints)
