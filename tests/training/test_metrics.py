"""Figures of merit against independent computations on the same pictures."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import lab2rgb, rgb2lab

pytest.importorskip("skimage")

from training.data.photos import find_photos
from training.evaluation import fid_lpips, image_metrics
from training.evaluation.protocol import Protocol, score
from training.evaluation.report import format_markdown
from training.evaluation.results import ResultFolder


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
    assert image_metrics.psnr(result, truth) == pytest.approx(expected, abs=1e-9)
    assert image_metrics.psnr(truth, truth) == math.inf


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
    assert image_metrics.ssim(*pictures) == pytest.approx(float(map_.mean()), abs=1e-6)


def test_ssim_is_about_that_of_torchmetrics(pictures):
    functional = pytest.importorskip("torchmetrics.functional.image")
    result, truth = (torch.from_numpy(p).permute(2, 0, 1)[None].double() for p in pictures)
    expected = functional.structural_similarity_index_measure(
        result, truth, sigma=1.5, kernel_size=11, data_range=255.0
    )
    assert image_metrics.ssim(*pictures) == pytest.approx(float(expected), abs=1e-3)


def test_psnr_of_luma_is_that_of_the_papers_on_super_resolution():
    rng = np.random.default_rng(0)
    truth, result = rng.integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    weights = {"R": 65.481, "G": 128.553, "B": 24.966}  # rgb2ycbcr of MATLAB

    def luma(picture):
        planes = (picture[3:-3, 3:-3] / 255.0).transpose(2, 0, 1)
        return 16 + sum(w * p for w, p in zip(weights.values(), planes, strict=True))

    mean_square = ((luma(truth) - luma(result)) ** 2).mean()
    expected = 10 * math.log10(255**2 / mean_square)
    assert image_metrics.psnr_y(result, truth, 3) == pytest.approx(expected, abs=1e-9)
    result[3:-3, 3:-3] = truth[3:-3, 3:-3]
    assert image_metrics.psnr_y(result, truth, 3) == math.inf
    assert image_metrics.psnr_y(result, truth, 0) < 30


def test_results_of_other_systems_stand_beside_ours(tmp_path):
    photos, made = tmp_path / "photos", tmp_path / "made"
    photos.mkdir(), made.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
        if number != 3:
            side = 40 if number == 2 else 48
            Image.fromarray(255 - pixels).resize((side, side)).save(made / f"{number}.tif")
    Image.new("RGB", (48, 48)).save(made / "surplus.png")
    entries = find_photos([photos])
    other = ResultFolder(str(made), entries)
    protocol = Protocol(size=48, magnification=3.0, modes=())
    found = score(None, entries, protocol, results={"Other": other.read})
    inverted = [
        image_metrics.psnr(255 - np.asarray(Image.open(path)), np.asarray(Image.open(path)))
        for path in sorted(photos.iterdir())[:2]
    ]
    assert found.rows["Other"]["psnr"] == pytest.approx(np.mean(inverted), abs=1e-6)
    assert "auto" not in found.rows
    assert len(found.photo_rows["Other"]) == 2
    assert sorted(other.problems) == [
        "2.tif: expected 48 x 48 pixels, got 40 x 40",
        "missing: 3",
        "no photo for surplus.png",
    ]
    assert "| Other | " in format_markdown(
        found, protocol, {"weights": "w", "parameters": {}, "device": "d"}, {}
    )
    with pytest.raises(ValueError, match="has the name of a photo"):
        ResultFolder(str(photos), find_photos([made / "surplus.png"]))


def test_dots_and_margins_are_measured(tmp_path):
    Image.fromarray(np.full((48, 48, 3), (200, 90, 60), np.uint8)).save(tmp_path / "a.png")
    seen = {}

    def colorize(low, reference, mode, mask=None):
        seen[mode] = (low, reference, mask)
        picture = np.full((48, 48, 3), (200, 90, 60), np.uint8)
        if mode == "margins":
            picture[:] = (90, 200, 60)
        return picture

    protocol = Protocol(size=48, magnification=2.0, dots=5)
    found = score(colorize, find_photos([tmp_path]), protocol)
    low, reference, mask = seen["dots"]
    assert torch.equal(low, reference)
    assert 3 * 3 < mask.sum() <= 5 * 3 * 3
    assert seen["margins"][0].shape == (1, 3, 26, 26)
    assert (seen["margins"][0][..., 0, :] == 1).all()
    assert found.rows["dots"]["ab_error"] < 0.01
    ab = [
        rgb2lab(np.array(c, np.uint8)[None, None])[0, 0, 1:] for c in ((200, 90, 60), (90, 200, 60))
    ]
    expected = np.linalg.norm(ab[1] - ab[0]) / np.linalg.norm(ab[0])
    assert found.margin_shift == pytest.approx(expected, abs=1e-3)


def test_colorfulness_by_hand():
    red, blue = [255, 0, 0], [0, 0, 255]
    picture = np.array([[red, blue]], dtype=np.uint8)
    # rg: 255, 0; yb: 127.5, -255
    rg, yb = np.array([255.0, 0]), np.array([127.5, -255])
    signed = math.sqrt(rg.var() + yb.var()) + 0.3 * math.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    assert image_metrics.colorfulness(picture) == pytest.approx(signed)
    assert image_metrics.colorfulness(picture, absolute=True) != pytest.approx(signed)
    assert image_metrics.colorfulness(np.full((4, 4, 3), 90, np.uint8)) == 0


def test_figures_of_a_gray_copy(pictures):
    gray = np.repeat(pictures[1][..., :1], 3, axis=2)
    row = image_metrics.compare(gray, image_metrics.Target(pictures[1]))
    assert row["chroma"] < 0.5
    assert row["delta_m3"] == pytest.approx(image_metrics.colorfulness(pictures[1]), abs=1)
    with pytest.raises(ValueError, match="one size"):
        image_metrics.compare(gray[:4], image_metrics.Target(pictures[1]))


def lab_by_hand(rgb):
    """sRGB uint8 (H, W, 3) -> L, a, b, each float64 (H, W); CIE 1976, D65."""
    c = rgb / 255
    linear = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    matrix = [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
    t = linear @ np.array(matrix).T / np.array([0.95047, 1.0, 1.08883])
    x, y, z = np.moveaxis(np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116), -1, 0)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def ciede2000(first, second):
    """Sharma, Wu and Dalal 2005, equations 2 to 22, on arrays of L, a, b."""
    (l1, a1, b1), (l2, a2, b2) = first, second
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 0.5 * (1 - np.sqrt(mean**7 / (mean**7 + 25.0**7)))
    c1, c2 = np.hypot((1 + g) * a1, b1), np.hypot((1 + g) * a2, b2)
    h1 = np.degrees(np.arctan2(b1, (1 + g) * a1)) % 360
    h2 = np.degrees(np.arctan2(b2, (1 + g) * a2)) % 360
    turn = (h2 - h1 + 180) % 360 - 180
    turn = np.where(c1 * c2 == 0, 0, turn)
    dl, dc, dh = l2 - l1, c2 - c1, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    lm, cm = (l1 + l2) / 2, (c1 + c2) / 2
    hm = np.where(c1 * c2 == 0, h1 + h2, (h1 + turn / 2) % 360)
    t = (
        1
        - 0.17 * np.cos(np.radians(hm - 30))
        + 0.24 * np.cos(np.radians(2 * hm))
        + 0.32 * np.cos(np.radians(3 * hm + 6))
        - 0.20 * np.cos(np.radians(4 * hm - 63))
    )
    sl = 1 + 0.015 * (lm - 50) ** 2 / np.sqrt(20 + (lm - 50) ** 2)
    sc, sh = 1 + 0.045 * cm, 1 + 0.015 * cm * t
    rc = 2 * np.sqrt(cm**7 / (cm**7 + 25.0**7))
    rt = -np.sin(np.radians(60 * np.exp(-(((hm - 275) / 25) ** 2)))) * rc
    parts = dl / sl, dc / sc, dh / sh
    return np.sqrt(sum(p**2 for p in parts) + rt * parts[1] * parts[2])


def test_ciede2000_by_hand_is_sharmas():
    """Rows 1, 7 and 17 of the test data of the paper."""
    for first, second, expected in (
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ):
        values = (tuple(np.float64(v) for v in lab) for lab in (first, second))
        assert ciede2000(*values) == pytest.approx(expected, abs=5e-5)


def test_rows_of_evaluate_are_what_other_code_finds(tmp_path):
    """Means over photos equal those of formulas and pictures computed here, without the package."""
    rng = np.random.default_rng(3)
    for i in range(3):
        small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        small.resize((70, 50), Image.Resampling.BICUBIC).save(tmp_path / f"{i}.png")

    def blue(low, reference, mode):  # stands in for a network
        return np.asarray(
            Image.fromarray((low[0].permute(1, 2, 0) * 255).round().byte().numpy())
            .resize((48, 48), Image.Resampling.NEAREST)
            .point(lambda v: v // 2 + 60)
        )

    protocol = Protocol(size=48, magnification=3.0, modes=("auto",))
    made = score(blue, find_photos([tmp_path]), protocol)
    expected = {"auto": [], "true colour + bicubic": []}
    for path in sorted(tmp_path.glob("*.png")):
        truth = Image.open(path).crop((10, 0, 60, 50)).resize((48, 48), Image.Resampling.BICUBIC)
        low = truth.resize((16, 16), Image.Resampling.BICUBIC)
        results = {
            "auto": low.resize((48, 48), Image.Resampling.NEAREST).point(lambda v: v // 2 + 60),
            "true colour + bicubic": low.resize((48, 48), Image.Resampling.BICUBIC),
        }
        true_lab = lab_by_hand(np.asarray(truth))
        for name, result in results.items():
            lab = lab_by_hand(np.asarray(result))
            error = [a - b for a, b in zip(lab, true_lab, strict=True)]
            square = (np.asarray(result, dtype=float) - np.asarray(truth, dtype=float)) ** 2
            expected[name].append(
                {
                    "psnr": 10 * math.log10(255**2 / square.mean()),
                    "psnr_l": 10 * math.log10(100**2 / (error[0] ** 2).mean()),
                    "psnr_ab": 10
                    * math.log10(255**2 / ((error[1] ** 2 + error[2] ** 2) / 2).mean()),
                    "ab_error": (abs(error[1]) + abs(error[2])).mean() / 2,
                    "chroma": np.hypot(lab[1], lab[2]).mean(),
                    "delta_e": ciede2000(true_lab, lab).mean(),
                }
            )
    assert made.photos == 3
    for name, rows in expected.items():
        for figure in rows[0]:
            wanted = np.mean([row[figure] for row in rows])
            assert made.rows[name][figure] == pytest.approx(wanted, rel=1e-3), (name, figure)


def test_moving_towards_a_reference():
    gray, warm, red = (
        np.full((8, 8, 3), c, np.uint8) for c in ([90] * 3, [120, 90, 60], [255, 0, 0])
    )
    assert image_metrics.moves_towards(gray, warm, red)
    assert not image_metrics.moves_towards(warm, gray, red)


def test_frechet_and_kernel_distance():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(4000, 5)), rng.normal(size=(4000, 5))
    assert image_metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    # Between N(0, 1) and N(3, 4) in 5 dimensions: 5 * (9 + 1 + 4 - 2 * 2)
    assert image_metrics.frechet_distance(a, 2 * b + 3) == pytest.approx(50, rel=0.05)
    assert image_metrics.kernel_distance(a, b) == pytest.approx(0, abs=0.02)
    assert image_metrics.kernel_distance(a, b + 1) > 0.5


def test_fid_and_kid_where_there_is_a_network(monkeypatch, tmp_path):
    monkeypatch.setattr(
        fid_lpips, "load_inception", lambda weights: lambda picture: picture.mean((0, 1))
    )
    weights = tmp_path / "weights.pth"
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(1)}, weights)
    found = fid_lpips.Extras(str(weights), with_lpips=False)
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        found.add({"truth": truth, "auto": truth // 2, "reference": truth})
    rows = found.rows()
    assert set(rows) == {"truth", "auto"}
    assert rows["truth"]["fid"] == pytest.approx(0, abs=1e-6)
    assert rows["auto"]["fid"] > 1000
    assert set(found.missing) == {"lpips"}


@pytest.mark.parametrize("content", [b"", b"no weights", b"junk" * 100, "pickle", None])
def test_a_bad_inception_file_is_refused(tmp_path, content):
    """A missing file, or one with other content, is an error before anything is computed."""
    path = tmp_path / "weights.pth"
    if content == "pickle":
        torch.save({"a": torch.zeros(1)}, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=r"weights\.pth"):
        fid_lpips.Extras(str(path), with_lpips=False)


def test_coarse_colours_by_hand():
    """16 x 16 cells of 2 x 2 pixels: left half green, right half blue in the target."""
    lab = np.zeros((32, 32, 3))
    lab[..., 0] = 60
    lab[:, :16, 1:], lab[:, 16:, 1:] = (-30, 30), (5, -30)
    target = np.round(lab2rgb(lab) * 255).astype(np.uint8)
    lab[:, 16:, 1:] = 0, 0  # the prediction has the green, and gray for the blue
    prediction = np.round(lab2rgb(lab) * 255).astype(np.uint8)
    row = image_metrics.compare(prediction, image_metrics.Target(target))
    result = image_metrics.aggregate([row, row])
    energy_left, energy_right = 30**2 + 30**2, 5**2 + 30**2
    expected = energy_left / (energy_left + energy_right)
    assert result["explained"] == pytest.approx(expected, abs=0.01)
    assert result["explained_a"] == pytest.approx(30**2 / (30**2 + 5**2), abs=0.02)
    assert result["hits_greens"] == 1
    assert result["hits_blues"] == 0
    assert "hits_reds" not in result
    assert not any(name.startswith("_") for name in result)
    perfect = image_metrics.compare(target, image_metrics.Target(target))
    assert image_metrics.aggregate([perfect])["explained"] == 1


def test_cells_of_any_size():
    lab = np.random.default_rng(0).normal(size=(37, 50, 3))
    cells = image_metrics.average_cells(lab)
    assert cells.shape == (16, 16, 2)
    assert cells[3, 5] == pytest.approx(
        lab[3 * 37 // 16 : 4 * 37 // 16, 5 * 50 // 16 : 6 * 50 // 16, 1:].mean((0, 1))
    )
