"""Figures 9 and 12 from the command."""

import numpy as np
import pytest
from PIL import Image
from training_run import refuse

from scsnet import checkpoint, encode_picture, render
from training import figures


def test_figure_9_zooms_into_one_encoding(photos, tmp_path, tiny_net):
    photo, out, weights = (
        photos / "00.png",
        tmp_path / "film" / "zoom.webp",
        tmp_path / "w.safetensors",
    )
    checkpoint.save(weights, tiny_net)
    figures.main(
        f"--figure 9 --photo {photo} --output {out} --weights {weights} --input 32 --size 48 "
        "--frames 5 --magnification 4".split()
    )
    with Image.open(out) as film:
        assert (film.n_frames, film.size) == (5, (48, 48))
        film.seek(4)
        last = np.asarray(film.convert("RGB")).astype(int)
    features = encode_picture(tiny_net, figures.read_square(str(photo), 32))
    expected = render(tiny_net, features, (192, 192), (72, 72, 48, 48))
    pixels = (expected[0].permute(1, 2, 0) * 255).round().numpy()
    assert np.abs(last - pixels).mean() < 6  # WebP is lossy


def test_figure_12_has_copies_that_differ(photos, tmp_path):
    photo, out = photos / "01.png", tmp_path / "sheet.png"
    figures.main(f"--figure 12 --photo {photo} --output {out} --input 64 --copies 3".split())
    sheet = np.asarray(Image.open(out)).astype(int)
    assert sheet.shape == (64, 256, 3)
    original, *copies = np.split(sheet, 4, axis=1)
    square = figures.read_square(str(photo), 64)
    assert np.array_equal(original, (square[0].permute(1, 2, 0) * 255).round().numpy())
    for copy in copies:
        assert min(np.abs(original - p).mean() for p in (copy, copy[:, ::-1])) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--output a.png", "ends with .webp"),
        ("--figure 12 --output a.webp", "ends with .png"),
        ("--output a.webp --magnification 1", "magnification in 1..32"),
        ("--output a.webp --weights none", "none"),
    ],
)
def test_mistakes_are_named(photos, options, message):
    assert message in refuse(figures.main, f"--photo {photos}/00.png {options}")
