"""Tables 6 and 7: patches, rows, evaluation, and the whole command."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from training_run import make_photos, refuse

from training import ablate
from training.config.upscaling import SIZES, Sizes, UpscalingConfig
from training.data.photos import find_photos
from training.engine import upscaling as engine
from training.evaluation import upscaling
from training.evaluation.image_metrics import psnr_y, ssim_y
from training.models.upscaling_heads import FACTORS, ROWS, build_head

TINY = Sizes(4, 1, 1, 4, 8)


@pytest.fixture
def config(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "small", TINY)
    folders = {"data": (str(photos),), "validation": (str(photos),), "output": str(tmp_path / "a")}
    return UpscalingConfig(**folders, photos=2, steps=4, batch=2, patch=8, save_every=2)


def test_inputs_are_the_targets_brought_down(config):
    low, target = (planes[1] * 255 for planes in engine.Patches(config).draw(0, 2))
    picture = Image.fromarray(target.round().byte().permute(1, 2, 0).numpy())
    expected = np.asarray(picture.resize((8, 8), Image.Resampling.BICUBIC))
    assert np.array_equal(low.round().byte().permute(1, 2, 0).numpy(), expected)


def test_unusable_photos_are_left_out(config, photos, capsys):
    (photos / "00.png").write_bytes(b"no picture")
    patches = engine.Patches(config)
    for step in range(20):
        patches.draw(step, 2)
    assert capsys.readouterr().out.count("00.png: not a picture") == 1
    with pytest.raises(ValueError, match="at least 128 pixels"):
        engine.Patches(replace(config, patch=32)).draw(0, 2)


def test_row_learns(config):
    config = replace(config, steps=60, learning_rate=3e-3)
    low, target = engine.Patches(config).draw(1000, 2)
    networks = (engine.Upscaler("CPM", TINY, config.seed), engine.train_row("CPM", config))
    before, after = ((net(low, (16, 16)) - target).abs().mean() for net in networks)
    assert after < 0.6 * before


def test_interrupted_row_ends_as_one_that_ran_through(config, tmp_path, monkeypatch):
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


@pytest.mark.parametrize("magnification", [1, 1.5, 3.3])
def test_pairs_cover_the_same_area(magnification):
    """Bringing down and enlarging does not move a picture: its centre of mass stays."""
    photo = np.zeros((61, 47, 3), np.uint8)
    photo[20:40, 15:30] = 255
    low, truth = upscaling.make_pair(photo, magnification)
    assert all(0 <= a - b < magnification for a, b in zip((61, 47), truth.shape, strict=False))
    centres = []
    for picture in (low, truth):
        y, x = ((np.arange(n) + 0.5) / n for n in picture.shape[:2])
        mass = picture[..., 0] / picture[..., 0].sum(dtype=float)
        centres.append((mass.sum(1) @ y, mass.sum(0) @ x))
    assert centres[0] == pytest.approx(centres[1], abs=0.005)


def test_bicubic_scores_are_those_of_pillow(photos):
    entries = find_photos([str(photos)])[:2]
    networks = {row: engine.Upscaler(row, TINY).eval() for row in ROWS}
    scores = upscaling.score_photos(networks, entries, (1.0, 2.0))
    assert scores["bicubic"][1.0] == (float("inf"), 1.0)
    expected = []
    for entry in entries:
        truth = Image.open(entry.path)
        low = truth.resize((40, 32), Image.Resampling.BICUBIC)
        result = low.resize((80, 64), Image.Resampling.BICUBIC)
        pictures = np.asarray(result), np.asarray(truth)
        expected.append((psnr_y(*pictures, 2), ssim_y(*pictures, 2)))
    assert scores["bicubic"][2.0] == pytest.approx(np.mean(expected, axis=0), abs=1e-6)


def read_rows(text):
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[1:]]


def test_table_6_is_written_and_finished_rows_are_kept(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(upscaling, "MAGNIFICATIONS", (1.0, 2.0, 3.0, 4.0, 8.0))
    photos, second = config.data[0], make_photos(tmp_path / "Set14", 1)
    line = (
        f"--table 6 --data {photos} --validation {photos} {second} --output {config.output} "
        "--photos 1 --steps 2 --batch 2 --patch"
    )
    ablate.main(f"{line} 8".split())
    text = (tmp_path / "a/table6.md").read_text()
    assert text in capsys.readouterr().out
    rows = read_rows(text)
    assert [row[0] for row in rows[:5]] == ["bicubic", "sub-pixel", "LIIF", "Meta-SR", "CPM"]
    assert rows[8][:6] == ["paper: CPM", "", "", "", "", "34.000 / 0.9207"]
    counts = [int(row[1].replace(",", "")) for row in rows[1:5]]
    assert counts[0] == sum(upscaling.count_parameters(build_head(row, TINY)) for row in FACTORS)
    assert counts[3] == upscaling.count_parameters(build_head("CPM", TINY))
    with Image.open(tmp_path / "a/table6.png") as plot:
        assert plot.width > plot.height
    ablate.main(f"{line} 8".split())
    assert (tmp_path / "a/table6.md").read_text() == text
    message = f"row 'CPM' in {config.output}/CPM was trained with another patch"
    assert message in refuse(ablate.main, f"{line} 9")
    assert "patch must be" in refuse(ablate.main, f"{line} 4")


def test_table_7_has_the_papers_parameters(tmp_path, monkeypatch):
    """0.45 M and 0.35 M in the paper; CPM on 64 channels, which all three see."""
    for name, value in (("FEATURES", 8), ("FRAME", 32), ("RUNS", 1)):
        monkeypatch.setattr(upscaling, name, value)
    rows = read_rows(ablate.compare_heads("7", UpscalingConfig(output=str(tmp_path))))
    assert {row[0]: row[1] for row in rows} == {
        "CPM": "346,371",
        "Meta-SR": "445,120",
        "LIIF": "346,883",
        "sub-pixel x4": "297,155",
    }
    assert all(float(row[2]) > 0 for row in rows)
    assert rows[0][3:] == ["0.35", "178"]
