"""Whole runs of other kinds: fine-tuning, features of other networks, dry runs, ablations."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from training_run import losses, make_vgg16, tiny_config

pytest.importorskip("accelerate")
pytest.importorskip("skimage")

from scsnet import SCSNetConfig, checkpoint
from training import ablate, curves, export, train
from training.config import TrainConfig
from training.config.overrides import CONFIG, load_config
from training.config.schedule import Schedule
from training.config.stage import Stage
from training.engine import checkpoints
from training.engine.dry_run import kinds_of_steps
from training.engine.loop import train as run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def vgg_file(tmp_path):
    return str(make_vgg16(tmp_path / "vgg.safetensors"))


def one_stage(photos, output, **changes):
    config = tiny_config(photos, output)
    return replace(config, stages=(replace(config.stages[1], adversarial=0.0, **changes),))


def test_perceptual_loss(photos, tmp_path, vgg_file):
    config = one_stage(photos, tmp_path / "run", perceptual=5.0)
    run(replace(config, perceptual_weights=vgg_file))
    assert all(row["perceptual"] > 0 for row in losses(tmp_path / "run").values())


def test_fine_tuning_starts_where_the_weights_are(photos, tmp_path):
    weights = run(one_stage(photos, tmp_path / "a"))
    config = one_stage(photos, tmp_path / "b", steps=1, learning_rate=1e-9)
    tuned = run(replace(config, init=str(weights), ema=0.0))
    before, after = checkpoint.load(weights), checkpoint.load(tuned)
    assert after.config == before.config
    for a, b in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-3)


def test_bf16_learns_too(photos, tmp_path):
    config = one_stage(photos, tmp_path / "run", steps=40, degrade=0.0, warmup=4)
    run(replace(config, precision="bf16"))
    rows = [row["ref_content"] for row in losses(tmp_path / "run").values() if "ref_content" in row]
    assert np.mean(rows[-5:]) < 0.9 * np.mean(rows[:5])


def test_weights_of_any_checkpoint(photos, tmp_path, capsys):
    weights = run(one_stage(photos, tmp_path / "run"))
    last = checkpoints.last(tmp_path / "run" / "checkpoints")
    (tmp_path / "README.md").write_text("of somebody else")
    export.main([str(last), str(tmp_path / "again.safetensors")])
    assert (tmp_path / "README.md").read_text() == "of somebody else"
    assert "There was no validation" in (tmp_path / "again.md").read_text()
    a, b = checkpoint.load(weights), checkpoint.load(tmp_path / "again.safetensors")
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert b.config == a.config
    export.main([str(last), str(tmp_path / "larger.safetensors"), "--working-size", "96"])
    assert checkpoint.load(tmp_path / "larger.safetensors").config.working_size == 96
    with pytest.raises(SystemExit):
        export.main([str(last), str(tmp_path / "x.safetensors"), "--working-size", "2"])
    assert "working_size must be between" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        export.main([str(photos / "00.png"), "x.safetensors"])
    assert "cannot be read" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        export.main([str(last), str(tmp_path / "again")])
    assert "weights are a .safetensors file" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(photos, tmp_path, capsys):
    (photos / "bad.jpg").touch()
    out = tmp_path / "run"
    options = ["--data", str(photos), "--output", str(out), "--dry-run", "--network.width", "8"]
    train.main([*options, "--network.depth", "1", "--size", "16", "--batch", "2", "--window", "16"])
    text = capsys.readouterr().out
    assert "data: 13 photos; of 13 looked at 1 are bad" in text
    assert "stage 2: 500 steps of" in text
    assert "in all" in text
    assert "photos kept in memory take up to 2 GB more" in text
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reference_fraction": 0.5}, {True: 0.5, False: 0.5}),
        ({"reference_fraction": 0.25}, {True: 3 / 4, False: 1 / 4}),
        ({"reference_fraction": 0.0}, {True: 1.0}),
    ],
)
def test_the_estimate_knows_both_kinds_of_steps(changes, expected):
    schedule = Schedule(TrainConfig(stages=(Stage(steps=5), Stage(steps=12, **changes))), 3)
    kinds = kinds_of_steps(schedule, 5, 12)
    assert {schedule.at(step).automatic: share for step, share in kinds} == pytest.approx(expected)
    assert all(5 < step < 17 for step, _ in kinds)


@pytest.mark.parametrize("table", ["4", "5"])
def test_ablations(photos, tmp_path, table, vgg_file):
    config = one_stage(photos, tmp_path / "a", steps=2, magnification=(4.0, 4.0), window=32)
    config = replace(config, validation=(str(photos),), perceptual_weights=vgg_file)
    text = ablate.ablate(table, config, photos=1)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(ablate.PAPER[table]) + 2
    floor, ceiling = (float(row.split("|")[2]) for row in rows[-2:])
    assert floor < ceiling
    assert (tmp_path / "a" / f"table{table}.md").read_text() == text
    assert ablate.ablate(table, config, photos=1) == text  # finished rows are kept
    stage = replace(config.stages[0], steps=3)
    with pytest.raises(ValueError, match="trained with another stages"):
        ablate.ablate(table, replace(config, stages=(stage,)), photos=1)


def test_what_makes_it_use_its_reference(photos, tmp_path, capsys):
    options = (
        *("--table", "start", "--data", str(photos), "--validation", str(photos), "--photos", "3"),
        *("--output", str(tmp_path / "a"), "--steps", "2", "--batch", "2", "--size", "16"),
        *("--network.width", "8", "--network.depth", "1", "--precision", "float32"),
    )
    ablate.main(options)
    text = (tmp_path / "a" / "tablestart.md").read_text()
    assert text in capsys.readouterr().out
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(ablate.START)
    literal, ours = (
        load_config(next((tmp_path / "a").glob(pattern)) / CONFIG)
        for pattern in ("the_paper*", "cosine*")
    )
    assert (literal.network.norm, literal.network.attention_scale) == ("instance", 1.0)
    assert (literal.siamese, literal.stages[0].supervision) == (False, 0.0)
    assert ours.network == replace(SCSNetConfig(), width=8, depth=1)
    assert (ours.siamese, ours.stages[0].supervision) == (True, 10.0)


def test_loss_curves_of_a_run(tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    rows = [
        {"step": n, "auto_content": 1 / n, "gradient": 2.0, "stage": 1 + n // 50}
        for n in range(1, 100)
    ]
    rows += [{"step": 50, "auto_psnr": 20.0}, {"step": 99, "auto_psnr": 25.0}]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 10')
    panels = curves.group_curves(curves.read_log(log))
    assert {name: list(lines) for name, lines in panels.items()} == {
        "content loss (Eq. 5)": ["auto_content"],
        "gradient norm": ["gradient"],
        "validation: PSNR in dB": ["auto_psnr"],
    }
    assert panels["validation: PSNR in dB"]["auto_psnr"] == ([50, 99], [20.0, 25.0])
    curves.main([str(tmp_path)])
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size[0] > 400
    log.write_text("")
    with pytest.raises(SystemExit):
        curves.main([str(tmp_path)])
    assert "no lines" in capsys.readouterr().err
