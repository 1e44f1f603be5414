"""Configs, presets and the command line that changes them."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from training_run import refuse

from training import losses
from training.config import Stage, TrainConfig
from training.config.overrides import format_options
from training.config.presets import PRESETS
from training.config.schedule import Schedule
from training.train import read_options

BASE = "--data photos --output run"


def test_preset_paper_is_that_of_the_paper():
    config = PRESETS["paper"]()
    (stage,) = config.stages
    assert (losses.CONTENT, stage.perceptual, stage.adversarial) == (10, 5, 1)
    assert (stage.size, stage.magnification, stage.batch, stage.epochs) == (128, (4, 4), 4, 50)
    assert (config.betas, config.weight_decay, stage.learning_rate) == ((0.9, 0.999), 1e-4, 1e-4)
    schedule = Schedule(config, 407041)
    assert schedule.total == round(50 * 407041 / 4)
    assert schedule.at(10**6).learning_rate == 1e-4
    assert [schedule.at(step).automatic for step in range(4)] == [True, False, True, False]
    assert config.network.norm == "instance"


def test_options_change_the_preset(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    line = (
        "--data=~/photos --output=~/run --preset laptop --batch 8 --stage2.batch 4 --network.depth=2 "
        "--magnification 1 3 --trains color --reference_fraction 0.25 --dry-run"
    )
    config, resume, dry = read_options(line.split())
    assert (config.data, config.output) == (("/home/me/photos",), "/home/me/run")
    assert [stage.batch for stage in config.stages] == [8, 4]
    assert config.network.depth == 2
    for stage in config.stages:
        assert (stage.magnification, stage.trains) == ((1.0, 3.0), "color")
        assert stage.reference_fraction == 0.25
    assert (resume, dry) == (False, True)


def test_mistakes_are_named():
    for options, message in (
        ("--bacth 4", "did you mean --batch?"),
        ("--network.widht 8", "did you mean --network.width?"),
        ("--stage1.batsh 4", "unknown option --stage1.batsh"),
        ("--stage9.batch 4", "expected a stage from 1 to 2, got 9"),
        ("--batch 4.5", "invalid int value: '4.5'"),
        ("--batch 5 --accumulate 2", "batch must be a multiple of accumulate, got 5 and 2"),
        ("--magnification 4 1", "low <= high"),
        ("--size 30", "multiple of 4"),
        ("--stage2.size 30", "stage 2: size"),
        ("--learning-rate nan", "learning_rate must be"),
        ("--ema 1", "ema must be"),
        ("--adversarial 1 --size 16 --magnification 1 4", "at least 32 pixels"),
        ("--network.width 6", "width must be a multiple of 4"),
        (f"--seed {2**64}", "seed must be"),
        ("--network.head pixel_shuffle", "magnification must be 4 4"),
        ("--preset laptopp", "invalid choice: 'laptopp'"),
        ("--preset finetune --network.width 32", "cannot be used with --init"),
        ("--resume", "Config not found: run/config.json"),
        ("--resume --preset paper", "not allowed with argument --resume"),
        ("--resume --output=", "--output is required with --resume"),
        ("--data", "--data is required"),
    ):
        assert message in refuse(read_options, f"{BASE} {options}")


def test_broken_config_file_is_refused(tmp_path):
    for text in ("", "{", "[]", "null", '{"stages": 5}', '{"stages": [[]]}'):
        (tmp_path / "config.json").write_text(text)
        message = refuse(read_options, f"--output {tmp_path} --resume")
        assert "config.json is not a usable config" in message


def test_run_starts_from_a_config_file_or_resumes_with_its_own(tmp_path):
    before = replace(PRESETS["laptop"](), data=("photos",), output=str(tmp_path), seed=7)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(before.to_dict()))
    config, resume, _ = read_options(f"{BASE} --config {file} --ema 0".split())
    assert (config.seed, config.ema, resume) == (7, 0.0, False)
    assert config.stages == before.stages
    config, resume, _ = read_options(f"--output {tmp_path} --resume --stage2.batch 2".split())
    assert resume
    assert [stage.batch for stage in config.stages] == [16, 2]
    assert config.stages[0] == before.stages[0]


def run_without_extras(root, code, *arguments):
    """Run Python in which the packages of the extras cannot be imported."""
    extras = ("accelerate", "matplotlib", "psutil", "skimage", "tensorboard", "torchmetrics")
    prelude = f"import importlib, sys\nsys.modules.update(dict.fromkeys({extras}))\n"
    command = [sys.executable, "-c", prelude + code, *map(str, arguments)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_help_of_every_script_works_without_extras(root):
    code = """
for path in sorted(__import__("pathlib").Path("training").glob("*.py")):
    script = importlib.import_module(f"training.{path.stem}")
    if hasattr(script, "main"):
        try:
            script.main(["--help"])
        except SystemExit as end:
            assert not end.code, path
        print("helped:", path.stem)
"""
    done = run_without_extras(root, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("helped: ") >= 11
    assert "(default: 0.999)" in done.stdout


def test_missing_extra_is_one_line(root, photos, tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "content": 0.5}\n')
    for script, options in {
        "evaluate": ["--weights", "bundled", "--data", photos, "--limit", "1"],
        "curves": [tmp_path],
        "train": ["--data", photos, "--output", tmp_path / "run"],
    }.items():
        code = f"from training import {script}\n{script}.main(sys.argv[1:])"
        done = run_without_extras(root, code, *options)
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith(f"{script}.py: ")
        assert line.endswith("pip install -r training/requirements.txt")


def test_table_of_options_is_current(root):
    assert (root / "docs" / "options.md").read_text(encoding="utf-8") == format_options() + "\n"


def test_saved_configs_are_those_of_the_presets_and_may_lack_fields_but_have_no_others():
    for preset in PRESETS.values():
        assert TrainConfig.from_dict(json.loads(json.dumps(preset().to_dict()))) == preset()
    values = replace(TrainConfig(), seed=3).to_dict()
    with pytest.raises(ValueError, match="no field 'colour'"):
        TrainConfig.from_dict(values | {"colour": 1})
    stage = values["stages"][0]
    with pytest.raises(ValueError, match="stage 1: trains must be one of"):
        TrainConfig.from_dict(values | {"stages": (stage | {"trains": "colour"},)})
    del values["ema"], stage["degrade"]
    assert TrainConfig.from_dict(values) == replace(TrainConfig(), seed=3)


def test_learning_rate_rises_and_falls_in_each_stage():
    stage = Stage(steps=100, warmup=10, learning_rate=1e-3, final_fraction=0.1)
    schedule = Schedule(TrainConfig(stages=(stage, replace(stage, learning_rate=1e-4))), 5)
    rates = [schedule.at(step).learning_rate for step in range(200)]
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == rates[10] == pytest.approx(1e-3)
    assert 1e-4 < rates[99] < 1.1e-4
    assert max(rates[100:]) == pytest.approx(1e-4)
    assert schedule.at(0).supervision == stage.supervision
    assert schedule.at(50).supervision == 0


def test_every_photo_is_used_once_per_epoch():
    schedule = Schedule(TrainConfig(), 7)
    epochs = [[schedule.photo(7 * epoch + i) for i in range(7)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1]
