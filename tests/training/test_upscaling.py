"""Tables 6 and 7: patches, rows, evaluation, and the whole command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from training_run import make_photos

pytest.importorskip("accelerate")
pytest.importorskip("skimage")

from training import ablate
from training.config.upscaling import SIZES, Sizes, UpscalingConfig
from training.data.photos import find_photos
from training.engine import upscaling as engine
from training.evaluation import upscaling
from training.models.upscaling_heads import FACTORS, ROWS, build_head

TINY = Sizes(4, 1, 1, 4, 8)


@pytest.fixture
def config(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "small", TINY)
    return UpscalingConfig(
        data=(str(photos),),
        validation=(str(photos),),
        output=str(tmp_path / "a"),
        photos=2,
        steps=4,
        batch=2,
        patch=8,
        save_every=2,
    )


def test_rows_see_the_same_photos(config):
    """Whatever their magnification; the same again at the same step."""
    patches = engine.Patches(config)
    low, target = patches.draw(3, None)
    assert low.shape == (2, 3, 8, 8)
    assert target.shape[2] == target.shape[3]
    assert 8 <= target.shape[2] <= 32
    again = engine.Patches(config).draw(3, None)
    assert torch.equal(low, again[0])
    assert torch.equal(target, again[1])
    assert not torch.equal(low, patches.draw(4, None)[0])
    chosen = []
    for factor in (2, 4):
        patches.photos.photos.clear()
        assert patches.draw(3, factor)[1].shape == (2, 3, 8 * factor, 8 * factor)
        chosen.append(set(patches.photos.photos))
    assert chosen[0] == chosen[1]


def test_inputs_are_their_targets_brought_down(config):
    low, target = engine.Patches(config).draw(0, 2)
    picture = Image.fromarray((target[1] * 255).round().byte().permute(1, 2, 0).numpy())
    expected = np.asarray(picture.resize((8, 8), Image.Resampling.BICUBIC))
    assert np.array_equal((low[1] * 255).round().byte().permute(1, 2, 0).numpy(), expected)


def test_unusable_photos_are_left_out(config, photos, capsys):
    (photos / "00.png").write_bytes(b"no picture")
    patches = engine.Patches(config)
    for step in range(20):
        patches.draw(step, 2)
    assert capsys.readouterr().out.count("00.png: not a picture") == 1
    with pytest.raises(ValueError, match="smaller than 128 x 128"):
        engine.Patches(replace(config, patch=32)).draw(0, 2)


def test_a_row_learns(config):
    config = replace(config, steps=60, output=config.output + "learns", learning_rate=3e-3)
    patches = engine.Patches(config)
    low, target = patches.draw(1000, 2)
    before = engine.Upscaler("CPM", TINY, config.seed)(low, (16, 16))
    after = engine.train_row("CPM", config)(low, (16, 16))
    error = [(p - target).abs().mean() for p in (before, after)]
    assert error[1] < 0.6 * error[0]


def test_an_interrupted_row_ends_as_if_it_had_not_been(config, tmp_path, monkeypatch):
    whole = engine.train_row("LIIF", config).state_dict()
    draw = engine.Patches.draw

    def stop(self, step, factor):
        if step == 3:
            raise KeyboardInterrupt
        return draw(self, step, factor)

    config = replace(config, output=str(tmp_path / "b"))
    with monkeypatch.context() as patched:
        patched.setattr(engine.Patches, "draw", stop)
        with pytest.raises(KeyboardInterrupt):
            engine.train_row("LIIF", config)
    assert [p.name for p in (tmp_path / "b/LIIF/checkpoints").iterdir()] == ["step-00000002.pt"]
    resumed = engine.train_row("LIIF", config).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_pairs_cover_the_same_area():
    """Bringing down and enlarging does not move a picture: its centre of mass stays."""
    photo = np.zeros((61, 47, 3), np.uint8)
    photo[20:40, 15:30] = 255
    for magnification in (1, 1.5, 2, 3.3, 4):
        low, truth = upscaling.make_pair(photo, magnification)
        assert all(0 <= a - b < magnification for a, b in zip((61, 47), truth.shape, strict=False))
        for axis in (0, 1):
            centres = []
            for picture in (low, truth):
                mass = picture[..., 0].sum(1 - axis, dtype=float)
                place = (np.arange(len(mass)) + 0.5) / len(mass)
                centres.append((mass * place).sum() / mass.sum())
            assert centres[0] == pytest.approx(centres[1], abs=0.005)


def test_sub_pixel_heads_help_out_at_other_magnifications():
    """The nearest one's result, resized; of two, the larger."""

    class Flat(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = torch.nn.Parameter(torch.tensor(value))

        def forward(self, rgb, size):
            return self.value.expand(1, 3, *size)

    networks = {f"sub-pixel x{factor}": Flat(factor / 5) for factor in (2, 3, 4)}
    low = np.zeros((20, 10, 3), np.uint8)
    for magnification, factor in ((1, 2), (2, 2), (2.5, 3), (3, 3), (3.5, 4), (8, 4)):
        size = (int(20 * magnification), int(10 * magnification))
        result = upscaling.upscale(networks, "sub-pixel", low, size, magnification)
        assert result.shape == (*size, 3)
        assert (result == 51 * factor).all()


def test_bicubic_scores_are_those_of_the_metrics(photos):
    entries = find_photos([str(photos)])[:2]
    networks = {row: engine.Upscaler(row, TINY).eval() for row in ROWS}
    scores = upscaling.score_photos(networks, entries, (1.0, 2.0))
    assert scores["bicubic"][1.0] == (float("inf"), 1.0)
    expected = []
    for entry in entries:
        truth = Image.open(entry.path)
        low = truth.resize((40, 32), Image.Resampling.BICUBIC)
        error = luma(low.resize((80, 64), Image.Resampling.BICUBIC)) - luma(truth)
        expected.append(-10 * np.log10((error[2:-2, 2:-2] ** 2).mean() / 255**2))
    assert scores["bicubic"][2.0][0] == pytest.approx(np.mean(expected), abs=1e-6)


def luma(image):
    red, green, blue = np.asarray(image).astype(float).transpose(2, 0, 1)
    return 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255


def test_ssim_of_luma_is_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics.functional.image")
    from training.evaluation.image_metrics import ssim_y

    rng = np.random.default_rng(0)
    truth = make_smooth(rng)
    result = np.clip(truth + rng.normal(0, 9, truth.shape), 0, 255).astype(np.uint8)
    planes = [torch.from_numpy(luma(p)[3:-3, 3:-3])[None, None] for p in (result, truth)]
    _, picture = torchmetrics.structural_similarity_index_measure(
        *planes, data_range=255.0, gaussian_kernel=True, sigma=1.5, return_full_image=True
    )
    inner = picture[0, 0, 5:-5, 5:-5].mean()  # whole windows, as Wang et al.
    assert ssim_y(result, truth, 3) == pytest.approx(float(inner), abs=1e-3)


def make_smooth(rng):
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return np.asarray(small.resize((64, 48), Image.Resampling.BICUBIC))


def cells(text):
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_table_6(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(upscaling, "MAGNIFICATIONS", (1.0, 2.0, 3.0, 4.0, 8.0))
    named = make_photos(tmp_path / "Set14", 1)
    options = [
        *("--table", "6", "--data", *config.data, "--validation", *config.validation, str(named)),
        *("--output", config.output, "--photos", "1", "--steps", "2", "--batch", "2"),
    ]
    ablate.main([*options, "--patch", "8"])
    text = (tmp_path / "a/table6.md").read_text()
    assert text in capsys.readouterr().out
    rows = cells(text)
    methods = ["bicubic", "sub-pixel", "LIIF", "Meta-SR", "CPM"]
    assert [row[0] for row in rows[1:6]] == methods
    assert rows[9][:6] == ["paper: CPM", "", "", "", "", "34.000 / 0.9207"]
    counts = [int(row[1].replace(",", "")) for row in rows[2:6]]
    assert counts[0] == sum(upscaling.count_parameters(build_head(row, TINY)) for row in FACTORS)
    assert counts[3] == upscaling.count_parameters(build_head("CPM", TINY))
    with Image.open(tmp_path / "a/table6.png") as plot:
        assert plot.width > plot.height
    ablate.main([*options, "--patch", "8"])  # finished rows are kept
    assert (tmp_path / "a/table6.md").read_text() == text
    with pytest.raises(SystemExit):
        ablate.main([*options, "--patch", "9"])
    assert "row 'CPM'" in (message := capsys.readouterr().err)
    assert "trained with another patch" in message
    saved = json.loads((tmp_path / "a/CPM/config.json").read_text())
    assert saved["steps"] == 2


def test_table_7(tmp_path, monkeypatch):
    monkeypatch.setattr(upscaling, "FEATURES", 8)
    monkeypatch.setattr(upscaling, "FRAME", 32)
    monkeypatch.setattr(upscaling, "RUNS", 1)
    text = ablate.compare_heads("7", UpscalingConfig(output=str(tmp_path)))
    rows = cells(text)[1:]
    counts = {row[0]: row[1] for row in rows}
    assert counts == {
        "CPM": "346,371",
        "Meta-SR": "445,120",
        "LIIF": "346,883",
        "sub-pixel x4": "297,155",
    }
    assert all(float(row[2]) > 0 for row in rows)
    assert rows[0][3:] == ["0.35", "178"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"magnification": (0.5, 4.0)}, "1 <= low"),
        ({"patch": 4}, "patch must be at least 8"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        UpscalingConfig(**changes)
