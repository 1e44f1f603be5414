"""Runs in this process: from start to weights, interrupted and resumed, ended by errors."""

import json
import math
import os
import signal
from dataclasses import replace

import pytest
import torch
from training_run import StopError, losses, make_photos, stop_at, tiny_config

from scsnet import checkpoint
from training import losses as loss_functions
from training.config.overrides import CONFIG, load_config
from training.engine import checkpoints
from training.engine.checkpoints import RunError
from training.engine.loop import train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of `tiny_config` that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    train(tiny_config(make_photos(folder / "photos"), folder / "run"))
    return folder / "run"


def one_stage(config, **changes):
    return replace(config, stages=(replace(config.stages[0], **changes),))


def interrupt(config, on_step, error=StopError):
    with pytest.raises(error):
        train(config, on_step=on_step)


def test_run_makes_weights_with_a_card(photos, tmp_path, capsys):
    (photos / "bad.jpg").write_bytes(b"this is no photo")
    held_out, run = tmp_path / "held-out.txt", tmp_path / "run"
    held_out.write_text("photos/01.png\nphotos/bad.jpg\n")
    config = tiny_config(photos, run, validation=(str(held_out),), keep=2)
    weights = train(config)
    assert "left out a validation photo: photos/bad.jpg: not a picture" in capsys.readouterr().out
    assert checkpoint.load(weights).config.working_size == 16
    info = checkpoint.read_info(weights)
    assert (info.dtype, info.card["steps"]) == ("F16", 8)
    assert info.card["training"]["data"] == ["photos"]
    assert "auto_psnr" in info.card["figures"]
    readme = (run / "README.md").read_text()
    assert str(tmp_path) not in json.dumps(info.card) + readme
    assert "8 steps on 13 photos" in readme
    assert "![validation photos](validation.png)" in readme
    assert "At step 8, on at most 2 photos of held-out.txt: 16 px, magnified by 3." in readme
    assert (run / "validation.png").exists()
    kept = [path.stem for path in checkpoints.listed(run / "checkpoints")]
    assert kept == ["step-00000006", "step-00000008"]
    rows = losses(run)
    assert list(rows) == list(range(1, 9))
    assert {"auto_content", "supervision"} <= set(rows[1])
    assert {"ref_content", "adversarial", "discriminator"} <= set(rows[6])
    assert rows[8]["skipped_photos"] == 1
    assert load_config(run / CONFIG) == config
    train(config, resume=True)
    assert "all steps are done: the checkpoint is at step 8" in capsys.readouterr().out
    assert (run / "README.md").read_text() == readme


@pytest.mark.parametrize("ending", ["in stage 1", "in stage 2", "by a signal"])
def test_resumed_run_is_bit_for_bit_the_same(photos, tmp_path, whole, ending):
    config = tiny_config(photos, tmp_path / "cut")
    if ending == "by a signal":
        config = replace(config, save_every=100)
        interrupt(config, lambda _: os.kill(os.getpid(), signal.SIGTERM), RunError)
    else:
        interrupt(config, stop_at(3 if ending == "in stage 1" else 5))
    left = [tmp_path / "cut" / name for name in (".scsnet-1.part", "checkpoints/.scsnet-2.part")]
    for path in left:
        path.write_bytes(b"half of a file")
    train(config, resume=True)
    assert not any(path.exists() for path in left)
    assert losses(tmp_path / "cut") == losses(whole)
    last = "checkpoints/step-00000008.pt"
    first, second = (checkpoints.load(run / last) for run in (whole, tmp_path / "cut"))
    for name in ("model", "averaged", "discriminator"):
        assert all(torch.equal(tensor, second[name][k]) for k, tensor in first[name].items()), name


def test_accumulated_parts_and_workers_give_the_same_steps(photos, tmp_path):
    config = one_stage(tiny_config(photos, tmp_path / "a", workers=2), chroma_weight=0.0)
    train(config)
    train(one_stage(replace(config, output=str(tmp_path / "b"), workers=0), accumulate=2))
    for a, b in zip(losses(tmp_path / "a").values(), losses(tmp_path / "b").values(), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_refused_options_leave_the_run_as_it_is(photos, tmp_path):
    config = tiny_config(photos, tmp_path / "run", ema=0.9)
    interrupt(config, stop_at(5))
    before = (tmp_path / "run" / CONFIG).read_bytes()
    with pytest.raises(RunError, match="--resume"):
        train(config)
    plain = tuple(replace(stage, adversarial=0.0) for stage in config.stages)
    perceptual = tuple(replace(stage, perceptual=1.0) for stage in config.stages)
    for changes, error, message in (
        ({"seed": 5}, RunError, "seed cannot change"),
        ({"ema": 0.0}, RunError, "ema"),
        ({"stages": plain}, RunError, "adversarial"),
        ({"stages": perceptual, "perceptual_weights": "/none.npz"}, OSError, "none.npz"),
    ):
        with pytest.raises(error, match=message):
            train(replace(config, **changes), resume=True)
        assert (tmp_path / "run" / CONFIG).read_bytes() == before
    train(config, resume=True)


def test_folders_of_others_are_refused(photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file: a run needs a folder"):
        train(tiny_config(photos, tmp_path / "file"))
    (tmp_path / "README.md").write_text("of a project")
    with pytest.raises(RunError, match=r"holds a README\.md that does not belong to a run"):
        train(tiny_config(photos, tmp_path))
    assert (tmp_path / "README.md").read_text() == "of a project"


def test_damaged_checkpoint_is_refused(tmp_path):
    """Also with one flipped bit: torch writes checksums but does not compare them on loading."""
    state = {"format": "scsnet-training-2", "weights": torch.arange(5000.0)}
    older, path = (checkpoints.save(tmp_path, step, state, keep=3) for step in (1, 2))
    content = path.read_bytes()
    assert torch.equal(checkpoints.load(path)["weights"], state["weights"])
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 16
    for damaged in (b"", content[:-1], content[: len(content) // 2], b"text", flipped):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=f"{path} cannot be read.*to go on from {older}"):
            checkpoints.load(path)
    torch.save({"something": 1}, path)
    with pytest.raises(RunError, match="no checkpoint of this trainer"):
        checkpoints.load(path)


def test_nan_ends_the_run_with_the_last_good_checkpoint(photos, tmp_path, monkeypatch):
    real, good = loss_functions.content_loss, tmp_path / "run/checkpoints/step-00000004.pt"

    def broken(*arguments, **options):
        return real(*arguments, **options) * (math.nan if good.exists() else 1)

    monkeypatch.setattr(loss_functions, "content_loss", broken)
    message = f"content is nan at step 5; the last good checkpoint is {good}"
    with pytest.raises(RunError, match=message):
        train(tiny_config(photos, tmp_path / "run", log_every=100))
    assert checkpoints.last(good.parent) == good


def test_full_disk_ends_the_run_with_the_last_good_checkpoint(photos, tmp_path, monkeypatch):
    real, good = torch.save, tmp_path / "run/checkpoints/step-00000002.pt"

    def full(state, file):
        if good.exists():
            file.write(b"half")
            raise OSError(28, "No space left on device")
        real(state, file)

    monkeypatch.setattr(torch, "save", full)
    message = f"No space left on device; the last good checkpoint is {good}"
    with pytest.raises(RunError, match=message):
        train(tiny_config(photos, tmp_path / "run"))
    assert [*good.parent.iterdir()] == [good]


def test_two_runs_never_share_a_folder(photos, tmp_path):
    folder = tmp_path / "run"
    config = one_stage(tiny_config(photos, folder))

    def start_another(step):
        before = sorted(folder.rglob("*"))
        with pytest.raises(RunError, match="in use by another process"):
            train(config, resume=True)
        assert sorted(folder.rglob("*")) == before
        raise StopError

    interrupt(config, start_another)
    assert (folder / "run.lock").exists()  # without its holder
    train(config, resume=True)


def test_pictures_of_the_run_are_no_training_photos(photos, tmp_path, capsys):
    """The run may lie among the photos, and the photos in the folder of the run."""
    config = tiny_config(photos, photos / "run", validation=(str(photos),))
    interrupt(replace(config, output=str(tmp_path)), stop_at(1))
    assert "12 photos, 8 steps" in capsys.readouterr().out
    interrupt(config, stop_at(6))
    capsys.readouterr()
    train(config, resume=True)
    text = capsys.readouterr().out
    assert "12 photos, 8 steps" in text
    assert "pictures of the run itself" in text
    assert "validation photos are training photos too" in text
    assert "the checkpoint was trained on" not in text


def test_best_step_is_exported(photos, tmp_path, whole, capsys):
    """With a learning rate that ruins the network these are the initial weights, and a message says so."""
    start = whole / "weights.safetensors"
    config = tiny_config(photos, tmp_path / "run", init=str(start), ema=0.0)
    ruin = {"learning_rate": 0.05, "warmup": 0, "supervision": 0.0, "trains": "color"}
    config = one_stage(config, **ruin)
    weights = train(replace(config, validation=(str(photos),), validate_every=2))
    text = capsys.readouterr().out
    assert "No step was better on the validation photos than the initial weights." in text
    assert checkpoint.read_info(weights).card["steps"] == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "auto_psnr" in row] == [0, 2, 4]
    first, after = (checkpoint.load(path).state_dict() for path in (start, weights))
    assert all(torch.equal(first[name], after[name]) for name in first)
