"""Metrics against independent computations on the same pictures."""

import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab

from training.data.photos import find_photos
from training.evaluation import fid_lpips, image_metrics
from training.evaluation.protocol import Protocol, ResultFolder, score
from training.evaluation.report import format_markdown


def psnr(error, peak=255):
    return 10 * math.log10(peak**2 / np.square(error, dtype=float).mean())


def luma(picture):
    """As MATLAB's rgb2ycbcr, which papers on super-resolution use."""
    red, green, blue = np.moveaxis(picture / 255.0, -1, 0)
    return 16 + 65.481 * red + 128.553 * green + 24.966 * blue


def ssim(*pictures):
    """That of torchmetrics, over whole windows, as Wang et al."""
    functional = pytest.importorskip("torchmetrics.functional.image")
    planes = (torch.tensor(np.atleast_3d(p)).double().movedim(2, 0)[None] for p in pictures)
    options = {"sigma": 1.5, "kernel_size": 11, "data_range": 255.0, "return_full_image": True}
    _, picture = functional.structural_similarity_index_measure(*planes, **options)
    return float(picture[..., 5:-5, 5:-5].mean())


def test_results_of_other_systems_are_measured_too(tmp_path):
    photos, made, expected = tmp_path / "photos", tmp_path / "made", []
    photos.mkdir(), made.mkdir()
    rng = np.random.default_rng(0)
    for number, side in enumerate((48, 48, 40, 0)):
        pixels = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
        if side:
            Image.fromarray(255 - pixels).resize((side, side)).save(made / f"{number}.tif")
        expected.append(psnr(255 - 2.0 * pixels))
    Image.new("RGB", (48, 48)).save(made / "surplus.png")
    entries = find_photos([photos])
    other = ResultFolder(str(made), entries)
    protocol = Protocol(size=48, magnification=3.0, modes=())
    found = score(None, entries, protocol, results={"Other": other.read})
    assert found.rows["Other"]["psnr"] == pytest.approx(np.mean(expected[:2]), abs=1e-6)
    assert "auto" not in found.rows
    assert len(found.photo_rows["Other"]) == 2
    assert sorted(other.problems) == [
        "2.tif: expected 48 x 48 pixels, got 40 x 40",
        "missing: 3",
        "no photo for surplus.png",
    ]
    facts = {"weights": "w", "parameters": {}, "device": "d"}
    assert "| Other | " in format_markdown(found, protocol, facts, {})
    with pytest.raises(ValueError, match="has the name of a photo"):
        ResultFolder(str(photos), find_photos([made / "surplus.png"]))


def test_dots_and_margins_are_measured(tmp_path):
    colors = np.array([(200, 90, 60), (90, 200, 60)], np.uint8)
    plain, shifted = (np.tile(color, (48, 48, 1)) for color in colors)
    Image.fromarray(plain).save(tmp_path / "a.png")
    seen = {}

    def colorize(low, reference, mode, mask=None):
        seen[mode] = (low, reference, mask)
        return shifted if mode == "margins" else plain

    protocol = Protocol(size=48, magnification=2.0, dots=5)
    found = score(colorize, find_photos([tmp_path]), protocol)
    low, reference, mask = seen["dots"]
    assert torch.equal(low, reference)
    assert 3 * 3 < mask.sum() <= 5 * 3 * 3
    assert seen["margins"][0].shape == (1, 3, 26, 26)
    assert (seen["margins"][0][..., 0, :] == 1).all()
    assert found.rows["dots"]["ab_error"] < 0.01
    ab = rgb2lab(colors)[:, 1:]
    expected = np.linalg.norm(ab[1] - ab[0]) / np.linalg.norm(ab[0])
    assert found.margin_shift == pytest.approx(expected, abs=1e-3)


def test_colorfulness_by_hand():
    picture = np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)
    rg, yb = np.array([255.0, 0]), np.array([127.5, -255])
    signed = math.sqrt(rg.var() + yb.var()) + 0.3 * math.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    absolute = math.hypot(rg.std(), 63.75) + 0.3 * math.hypot(127.5, 191.25)
    assert image_metrics.colorfulness(picture) == pytest.approx(signed)
    assert image_metrics.colorfulness(picture, absolute=True) == pytest.approx(absolute)
    assert image_metrics.colorfulness(np.full((4, 4, 3), 90, np.uint8)) == 0


def test_rows_of_evaluate_are_means_over_photos(tmp_path):
    """Pictures and metrics are computed here without the package, with Pillow, scikit-image and torchmetrics."""
    rng = np.random.default_rng(3)
    for i in range(3):
        small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        small.resize((70, 50), Image.Resampling.BICUBIC).save(tmp_path / f"{i}.png")

    def enlarge(low):
        return low.resize((48, 48), Image.Resampling.NEAREST).point(lambda v: v // 2 + 60)

    def colorize(low, reference, mode):
        pixels = (low[0].permute(1, 2, 0) * 255).round().byte()
        return np.asarray(enlarge(Image.fromarray(pixels.numpy())))

    protocol = Protocol(size=48, magnification=3.0, modes=("auto",))
    made = score(colorize, find_photos([tmp_path]), protocol)
    rows = []
    for path in sorted(tmp_path.glob("*.png")):
        truth = Image.open(path).crop((10, 0, 60, 50)).resize((48, 48), Image.Resampling.BICUBIC)
        result = enlarge(truth.resize((16, 16), Image.Resampling.BICUBIC))
        result, truth = np.asarray(result), np.asarray(truth)
        m3, true_m3 = (image_metrics.colorfulness(p) for p in (result, truth))
        lab, true_lab = rgb2lab(result), rgb2lab(truth)
        error = lab - true_lab
        inner = [luma(picture)[3:-3, 3:-3] for picture in (result, truth)]
        assert image_metrics.ssim_y(result, truth, 3) == pytest.approx(ssim(*inner), abs=1e-6)
        row = {
            "psnr": psnr(result - truth.astype(float)),
            "ssim": ssim(result, truth),
            "psnr_y": psnr(inner[0] - inner[1]),
            "psnr_l": psnr(error[..., 0], 100),
            "psnr_ab": psnr(error[..., 1:]),
            "ab_error": np.abs(error[..., 1:]).mean(),
            "chroma": np.linalg.norm(lab[..., 1:], axis=2).mean(),
            "delta_m3": abs(m3 - true_m3),
            "delta_e": deltaE_ciede2000(true_lab, lab).mean(),
        }
        rows.append(row)
    assert made.photos == 3
    for figure in rows[0]:
        expected = np.mean([row[figure] for row in rows])
        assert made.rows["auto"][figure] == pytest.approx(expected, rel=1e-6), figure


def test_frechet_and_kernel_distance_of_normal_distributions():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(4000, 5)), rng.normal(size=(4000, 5))
    assert image_metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    # Between N(0, 1) and N(3, 4) in 5 dimensions: 5 * (9 + 1 + 4 - 2 * 2)
    assert image_metrics.frechet_distance(a, 2 * b + 3) == pytest.approx(50, rel=0.05)
    assert image_metrics.kernel_distance(a, b) == pytest.approx(0, abs=0.02)
    assert image_metrics.kernel_distance(a, b + 1) > 0.5


def test_file_without_inception_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "junk.pth").write_bytes(b"no weights")
    for name in ("other.pth", "junk.pth", "gone.pth"):
        with pytest.raises((ValueError, FileNotFoundError), match=name):
            fid_lpips.Extras(str(tmp_path / name), with_lpips=False)


def test_coarse_colours_by_hand():
    """The target is green on the left and blue on the right, the prediction has the green, and gray for the blue."""
    lab = np.full((32, 32, 3), 60.0)  # 16 x 16 cells of 2 x 2 pixels
    lab[:, :16, 1:], lab[:, 16:, 1:] = (-30, 30), (5, -30)
    target = image_metrics.Target(np.round(lab2rgb(lab) * 255).astype(np.uint8))
    lab[:, 16:, 1:] = 0
    prediction = np.round(lab2rgb(lab) * 255).astype(np.uint8)
    row = image_metrics.compare(prediction, target)
    result = image_metrics.aggregate([row, row])
    left, right = 30**2 + 30**2, 5**2 + 30**2
    assert result["explained"] == pytest.approx(left / (left + right), abs=0.01)
    assert result["explained_a"] == pytest.approx(30**2 / (30**2 + 5**2), abs=0.02)
    assert (result["hits_greens"], result["hits_blues"]) == (1, 0)
    assert "hits_reds" not in result
    perfect = image_metrics.compare(target.picture, target)
    assert image_metrics.aggregate([perfect])["explained"] == 1


def add_pictures(extras):
    """Add 8 pictures to FID, KID and LPIPS, with others for the row "auto"; return (truth, auto), uint8."""
    rng, rows = np.random.default_rng(0), []
    for low in (0, 60):
        small = rng.integers(low, 256, (8, 6, 6, 3), dtype=np.uint8)
        images = (Image.fromarray(p).resize((96, 96), Image.Resampling.BICUBIC) for p in small)
        rows.append(np.stack([np.asarray(image) for image in images]))
    for truth, auto in zip(*rows, strict=True):
        extras.add({"truth": truth, "auto": auto, "reference": auto})
    return rows


def test_fid_and_kid_are_computed_of_every_row(monkeypatch, tmp_path):
    """LPIPS, whose library is missing, says why."""
    monkeypatch.setattr(fid_lpips, "load_inception", lambda weights: lambda rgb: rgb.mean((0, 1)))
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", None)
    weights = tmp_path / "weights.pth"
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(1)}, weights)
    extras = fid_lpips.Extras(str(weights), with_lpips=True)
    add_pictures(extras)
    rows = extras.rows()
    assert set(rows) == {"truth", "auto"}
    assert rows["truth"]["fid"] == pytest.approx(0, abs=1e-6)
    assert rows["auto"]["fid"] > 500
    assert set(extras.missing) == {"lpips"}
    assert "torchmetrics" in extras.missing["lpips"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_fid_and_kid_are_those_of_torch_fidelity(tmp_path):
    fidelity = pytest.importorskip("torch_fidelity")
    inception = fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3
    torch.manual_seed(0)
    weights = str(tmp_path / "inception.pth")
    with pytest.MonkeyPatch.context() as patch:  # the constructor wants a file: give it none
        patch.setattr(torch, "load", lambda *a, **k: {})
        patch.setattr(inception, "load_state_dict", lambda *a, **k: None)
        net = inception("stand-in", ["2048"], feature_extractor_weights_path="none")
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(net.state_dict(), weights)
    extras = fid_lpips.Extras(weights, with_lpips=False)
    for name, pictures in zip(("truth", "auto"), add_pictures(extras), strict=True):
        (tmp_path / name).mkdir()
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / name / f"{number}.png")
    theirs = fidelity.calculate_metrics(
        input1=str(tmp_path / "auto"), input2=str(tmp_path / "truth"), fid=True, kid=True, kid_subset_size=8, kid_subsets=2,
        cuda=False, feature_extractor_weights_path=weights, samples_find_ext="png", cache=False, verbose=False,
    )  # fmt: skip
    row = extras.rows()["auto"]
    assert row["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert row["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_lpips_is_that_of_torchmetrics(tmp_path, monkeypatch):
    torchvision = pytest.importorskip("torchvision")
    functional = pytest.importorskip("torchmetrics.functional.image")
    torch.manual_seed(0)
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    file = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), cache / file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    extras = fid_lpips.Extras("", with_lpips=True)
    rows = (torch.from_numpy(p).permute(0, 3, 1, 2) / 127.5 - 1 for p in add_pictures(extras))
    expected = functional.learned_perceptual_image_patch_similarity(*rows, net_type="alex")
    assert extras.rows()["auto"]["lpips"] == pytest.approx(float(expected), rel=1e-3)
