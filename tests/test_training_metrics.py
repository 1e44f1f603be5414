"""Figures of merit against independent computations on the same pictures."""

import math

import numpy as np
import pytest
import torch

from training import extras, metrics

pytest.importorskip("skimage")


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    noisy = np.clip(truth.astype(int) + rng.integers(-20, 21, truth.shape), 0, 255).astype(np.uint8)
    return noisy, truth


def test_psnr_is_ten_log_ten_of_the_mean_square(pictures):
    result, truth = pictures
    total = sum((float(a) - float(b)) ** 2 for a, b in zip(result.flat, truth.flat, strict=True))
    expected = 10 * math.log10(255**2 / (total / truth.size))
    assert metrics.psnr(result, truth) == pytest.approx(expected, abs=1e-9)
    assert metrics.psnr(truth, truth) == math.inf


def test_ssim_is_the_formula(pictures):
    result, truth = (torch.from_numpy(p).permute(2, 0, 1)[None].double() for p in pictures)
    taps = torch.exp(-((torch.arange(11.0).double() - 5) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    window = torch.outer(taps, taps).expand(3, 1, 11, 11)

    def blurred(x):
        return torch.nn.functional.conv2d(x, window, groups=3)

    a, b = blurred(result), blurred(truth)
    variances = blurred(result**2) - a**2 + blurred(truth**2) - b**2
    covariance = blurred(result * truth) - a * b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    map_ = (2 * a * b + c1) * (2 * covariance + c2) / ((a**2 + b**2 + c1) * (variances + c2))
    assert metrics.ssim(*pictures) == pytest.approx(float(map_.mean()), abs=1e-6)


def test_ssim_is_about_that_of_torchmetrics(pictures):
    functional = pytest.importorskip("torchmetrics.functional.image")
    result, truth = (torch.from_numpy(p).permute(2, 0, 1)[None].double() for p in pictures)
    expected = functional.structural_similarity_index_measure(
        result, truth, sigma=1.5, kernel_size=11, data_range=255.0
    )
    assert metrics.ssim(*pictures) == pytest.approx(float(expected), abs=1e-3)


def test_colorfulness_by_hand():
    red, blue = [255, 0, 0], [0, 0, 255]
    picture = np.array([[red, blue]], dtype=np.uint8)
    # rg: 255, 0; yb: 127.5, -255
    rg, yb = np.array([255.0, 0]), np.array([127.5, -255])
    signed = math.sqrt(rg.var() + yb.var()) + 0.3 * math.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    assert metrics.colorfulness(picture) == pytest.approx(signed)
    assert metrics.colorfulness(picture, absolute=True) != pytest.approx(signed)
    assert metrics.colorfulness(np.full((4, 4, 3), 90, np.uint8)) == 0


def test_figures_of_a_gray_copy(pictures):
    gray = np.repeat(pictures[1][..., :1], 3, axis=2)
    row = metrics.figures(gray, metrics.Truth(pictures[1]))
    assert row["chroma"] < 0.5
    assert row["delta_m3"] == pytest.approx(metrics.colorfulness(pictures[1]), abs=1)
    with pytest.raises(ValueError, match="one size"):
        metrics.figures(gray[:4], metrics.Truth(pictures[1]))


def test_moving_towards_a_reference():
    gray, warm, red = (
        np.full((8, 8, 3), c, np.uint8) for c in ([90] * 3, [120, 90, 60], [255, 0, 0])
    )
    assert metrics.moves_towards(gray, warm, red)
    assert not metrics.moves_towards(warm, gray, red)


def test_frechet_and_kernel_distance():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(4000, 5)), rng.normal(size=(4000, 5))
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    # Between N(0, 1) and N(3, 4) in 5 dimensions: 5 * (9 + 1 + 4 - 2 * 2)
    assert metrics.frechet_distance(a, 2 * b + 3) == pytest.approx(50, rel=0.05)
    assert metrics.kernel_distance(a, b) == pytest.approx(0, abs=0.02)
    assert metrics.kernel_distance(a, b + 1) > 0.5


def test_fid_and_kid_where_there_is_a_network(monkeypatch):
    monkeypatch.setattr(extras, "inception", lambda weights: lambda picture: picture.mean((0, 1)))
    found = extras.Extras("weights.pth", with_lpips=False)
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        found.add({"truth": truth, "auto": truth // 2, "reference": truth})
    rows = found.rows()
    assert set(rows) == {"truth", "auto"}
    assert rows["truth"]["fid"] == pytest.approx(0, abs=1e-6)
    assert rows["auto"]["fid"] > 1000
    assert set(found.missing) == {"lpips"}


def test_figures_without_their_networks_say_why(tmp_path):
    found = extras.Extras(str(tmp_path / "nothing.pth"), with_lpips=False)
    assert "nothing.pth" in found.missing["fid"] or "torch_fidelity" in found.missing["fid"]
    assert found.rows() == {}
