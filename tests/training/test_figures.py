"""Figures 9 and 12 from the command."""

import numpy as np
import pytest
import torch
from PIL import Image

from scsnet import checkpoint, encode_picture, render
from training import figures


@pytest.fixture
def weights(tmp_path, tiny_net):
    checkpoint.save(tmp_path / "tiny.safetensors", tiny_net)
    return tmp_path / "tiny.safetensors"


def test_the_film_zooms_without_steps(photos, tmp_path, weights, tiny_net):
    photo, out = photos / "00.png", tmp_path / "film" / "zoom.webp"
    figures.main(
        ["--figure", "9", "--photo", str(photo), "--output", str(out), "--weights", str(weights),
         "--input", "32", "--size", "48", "--frames", "5", "--magnification", "4"]
    )  # fmt: skip
    with Image.open(out) as film:
        assert (film.n_frames, film.size) == (5, (48, 48))
        film.seek(4)
        last = np.asarray(film.convert("RGB")).astype(int)
    features = encode_picture(tiny_net, figures.read_square(str(photo), 32))
    expected = render(tiny_net, features, (192, 192), (72, 72, 48, 48))
    pixels = (expected[0].permute(1, 2, 0) * 255).round().numpy()
    assert np.abs(last - pixels).mean() < 6  # WebP is lossy


def test_the_sheet_has_copies_that_differ(photos, tmp_path):
    out = tmp_path / "sheet.png"
    arguments = ["--figure", "12", "--photo", str(photos / "01.png"), "--output", str(out)]
    figures.main([*arguments, "--input", "64", "--copies", "3"])
    sheet = np.asarray(Image.open(out))
    assert sheet.shape == (64, 256, 3)
    parts = [sheet[:, 64 * n : 64 * n + 64].astype(int) for n in range(4)]
    square = figures.read_square(str(photos / "01.png"), 64)
    assert np.array_equal(parts[0], (square[0].permute(1, 2, 0) * 255).round().numpy())
    for number in (1, 2, 3):
        assert min(np.abs(parts[0] - p).mean() for p in (parts[number], parts[number][:, ::-1])) > 1
    assert torch.equal(square, figures.read_square(str(photos / "01.png"), 64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "a.png"], "ends with .webp"),
        (["--figure", "12", "--output", "a.webp"], "ends with .png"),
        (["--output", "a.webp", "--magnification", "1"], "magnification in 1..32"),
        (["--output", "a.webp", "--weights", "none"], "none"),
    ],
)
def test_mistakes(photos, capsys, options, message):
    with pytest.raises(SystemExit):
        figures.main(["--photo", str(photos / "00.png"), *options])
    assert message in capsys.readouterr().err
