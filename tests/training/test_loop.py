"""Runs: from start to weights, interrupted and resumed, in one process and in two."""

import json
import math
import os
import signal
from dataclasses import replace

import pytest
import torch
from training_run import StopError, losses, stop_at, tiny_config

pytest.importorskip("accelerate")
pytest.importorskip("skimage")

from scsnet import checkpoint
from training.config import Stage
from training.config.overrides import CONFIG, load_config
from training.config.schedule import Schedule
from training.engine import checkpoints, step
from training.engine.checkpoints import RunError
from training.engine.loop import make_accelerator, train
from training.engine.step import Trainer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_a_whole_run(photos, tmp_path, capsys):
    (photos / "bad.jpg").write_bytes(b"this is no photo")
    (tmp_path / "held-out.txt").write_text("photos/01.png\nphotos/bad.jpg\n")
    config = tiny_config(
        photos, tmp_path / "run", validation=(str(tmp_path / "held-out.txt"),), keep=2
    )
    weights = train(config)
    assert "left out a validation photo: photos/bad.jpg: not a picture" in capsys.readouterr().out
    net = checkpoint.load(weights)
    assert net.config.working_size == 16
    assert checkpoint.read_info(weights).dtype == "F16"
    card = checkpoint.read_info(weights).card
    assert card["steps"] == 8
    assert card["training"]["data"] == ["photos"]
    assert str(tmp_path) not in json.dumps(card)
    readme = (tmp_path / "run" / "README.md").read_text()
    assert "8 steps on 13 photos" in readme
    assert (tmp_path / "run" / "validation.png").exists()
    assert [p.name for p in checkpoints.listed(tmp_path / "run" / "checkpoints")] == [
        "step-00000006.pt",
        "step-00000008.pt",
    ]
    rows = losses(tmp_path / "run")
    assert list(rows) == list(range(1, 9))
    assert {"auto_content", "supervision"} <= set(rows[1])
    assert {"ref_content", "adversarial", "discriminator"} <= set(rows[6])
    assert rows[8]["skipped_photos"] == 1
    assert load_config(tmp_path / "run" / CONFIG) == config
    assert "auto_psnr" in card["figures"]
    assert "| an elastic copy of itself |" in readme
    assert "![validation photos](validation.png)" in readme
    assert "At step 8, on at most 2 photos of held-out.txt: 16 px, magnified by 3." in readme
    capsys.readouterr()
    train(config, resume=True)
    assert "all steps are done: the checkpoint is at step 8" in capsys.readouterr().out
    assert (tmp_path / "run" / "README.md").read_text() == readme


@pytest.mark.parametrize("stop", [3, 5])
def test_a_resumed_run_is_bit_for_bit_the_same(photos, tmp_path, stop):
    train(tiny_config(photos, tmp_path / "whole"))
    config = tiny_config(photos, tmp_path / "cut")
    with pytest.raises(StopError):
        train(config, on_step=stop_at(stop))
    left = [tmp_path / "cut" / name for name in (".scsnet-1.part", "checkpoints/.scsnet-2.part")]
    for path in left:
        path.write_bytes(b"half of a file")
    train(config, resume=True)
    assert not any(path.exists() for path in left)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    whole = checkpoints.load(tmp_path / "whole" / "checkpoints" / "step-00000008.pt")
    cut = checkpoints.load(tmp_path / "cut" / "checkpoints" / "step-00000008.pt")
    for name in ("model", "averaged", "discriminator"):
        for key, tensor in whole[name].items():
            assert torch.equal(tensor, cut[name][key]), f"{name} {key}"


def test_accumulated_parts_give_the_same_step(photos, tmp_path):
    config = tiny_config(photos, tmp_path / "a")
    config = replace(config, stages=config.stages[:1])
    parts = replace(
        config,
        output=str(tmp_path / "b"),
        stages=(replace(config.stages[0], accumulate=2, chroma_weight=0.0),),
    )
    config = replace(config, stages=(replace(config.stages[0], chroma_weight=0.0),))
    train(config)
    train(parts)
    for a, b in zip(losses(tmp_path / "a").values(), losses(tmp_path / "b").values(), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_workers_change_nothing(photos, tmp_path):
    config = tiny_config(photos, tmp_path / "a")
    config = replace(config, stages=config.stages[:1])
    train(config)
    train(replace(config, output=str(tmp_path / "b"), workers=2))
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_a_run_is_not_overwritten(photos, tmp_path):
    config = tiny_config(photos, tmp_path / "run")
    with pytest.raises(StopError):
        train(config, on_step=stop_at(2))
    with pytest.raises(RunError, match="--resume"):
        train(config)
    with pytest.raises(RunError, match="seed cannot change"):
        train(replace(config, seed=5), resume=True)


def test_somebody_elses_readme_stays(photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file: a run needs a folder"):
        train(tiny_config(photos, tmp_path / "file"))
    (tmp_path / "README.md").write_text("of a project")
    with pytest.raises(RunError, match=r"holds a README\.md that does not belong to a run"):
        train(tiny_config(photos, tmp_path))
    assert (tmp_path / "README.md").read_text() == "of a project"


def test_a_signal_ends_the_run_after_its_step_and_resume_is_exact(photos, tmp_path):
    train(tiny_config(photos, tmp_path / "whole"))
    config = tiny_config(photos, tmp_path / "cut", save_every=100)

    def interrupt(step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunError, match="stopped at step 3"):
        train(config, on_step=interrupt)
    train(config, resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_an_unreadable_checkpoint_ends_the_run_and_names_the_older_one(photos, tmp_path):
    config = tiny_config(photos, tmp_path / "run")
    with pytest.raises(StopError):
        train(config, on_step=stop_at(4))
    newest = tmp_path / "run" / "checkpoints" / "step-00000004.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"step-00000004.*remove it to go on from .*step-00000002"):
        train(config, resume=True)
    newest.unlink()
    train(config, resume=True)


def test_a_damaged_checkpoint_is_noticed(tmp_path):
    """torch writes checksums but does not compare them on loading, so a flipped bit in the weights must be found here."""
    state = {"format": "scsnet-training-2", "weights": torch.arange(5000.0)}
    path = checkpoints.save(tmp_path, 1, state, keep=3)
    whole = path.read_bytes()
    assert torch.equal(checkpoints.load(path)["weights"], state["weights"])
    for damaged in (b"", whole[:-1], whole[: len(whole) // 2], b"text", flipped(whole)):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match="cannot be read"):
            checkpoints.load(path)
    entry = whole.index(
        b"PK\x01\x02"
    )  # of the list at the end, which says how parts are compressed
    for method in (8, 9, 12, 14, 99):
        path.write_bytes(whole[: entry + 10] + bytes([method]) + whole[entry + 11 :])
        with pytest.raises(RunError, match="cannot be read"):
            checkpoints.load(path)
    torch.save({"something": 1}, path)
    with pytest.raises(RunError, match="no checkpoint of this trainer"):
        checkpoints.load(path)


def flipped(content):
    """Flips one bit in the middle of a file."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


def test_nan_ends_the_run_with_the_last_good_checkpoint(photos, tmp_path, monkeypatch):
    from training import losses as module

    real, calls = module.content_loss, []

    def broken(*arguments, **options):
        calls.append(1)
        return real(*arguments, **options) * (math.nan if len(calls) == 5 else 1)

    monkeypatch.setattr(module, "content_loss", broken)
    config = tiny_config(photos, tmp_path / "run", log_every=100)
    with pytest.raises(
        RunError, match=r"content is nan at step 5; the last good checkpoint is .*step-00000004"
    ):
        train(config)
    assert checkpoints.last(tmp_path / "run" / "checkpoints").name == "step-00000004.pt"


def test_a_full_disk_ends_the_run_with_the_last_good_checkpoint(photos, tmp_path, monkeypatch):
    real, calls = torch.save, []

    def full(state, file):
        calls.append(1)
        if len(calls) == 2:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        real(state, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        RunError, match=r"No space left on device; the last good checkpoint is .*step-00000002"
    ):
        train(tiny_config(photos, tmp_path / "run"))
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002.pt"]


def test_a_refused_resume_leaves_the_run_as_it_is(photos, tmp_path):
    """Options that are incompatible with the checkpoint are refused before anything is written."""
    config = tiny_config(photos, tmp_path / "run", ema=0.9)
    with pytest.raises(StopError):
        train(config, on_step=stop_at(5))
    before = (tmp_path / "run" / "config.json").read_bytes()
    plain = tuple(replace(stage, adversarial=0.0) for stage in config.stages)
    for changes, word in (({"ema": 0.0}, "ema"), ({"stages": plain}, "adversarial")):
        with pytest.raises(RunError, match=word):
            train(replace(config, **changes), resume=True)
        missing = tuple(replace(stage, perceptual=1.0) for stage in config.stages)
        with pytest.raises((OSError, ValueError)):
            train(replace(config, stages=missing, perceptual_weights="/none.npz"), resume=True)
        assert (tmp_path / "run" / "config.json").read_bytes() == before
    train(config, resume=True)


def test_two_runs_never_share_a_folder(photos, tmp_path):
    config = tiny_config(photos, tmp_path / "run")
    folder = tmp_path / "run"

    def start_another(step):
        if step == 3:
            before = sorted(path.name for path in folder.rglob("*"))
            with pytest.raises(RunError, match="in use by another process"):
                train(config, resume=True)
            assert sorted(path.name for path in folder.rglob("*")) == before
            raise StopError

    with pytest.raises(StopError):
        train(config, on_step=start_another)
    assert (folder / "run.lock").exists()  # without its holder
    train(config, resume=True)


def test_photos_may_lie_in_the_folder_of_the_run(photos, tmp_path, capsys):
    with pytest.raises(StopError):
        train(tiny_config(photos, tmp_path), on_step=stop_at(1))
    assert "12 photos, 8 steps" in capsys.readouterr().out


def test_weights_that_differ_by_one_bit_have_another_checksum(photos, tmp_path):
    config = tiny_config(photos, tmp_path / "run")
    trainer = Trainer(config, Schedule(config, 12), make_accelerator(config))
    before = trainer.checksum()
    assert before.dtype == torch.int64  # float64 is missing on Apple GPUs
    assert torch.equal(trainer.checksum(), before)
    for network in (trainer.model, trainer.discriminator):
        parameter = next(network.parameters())
        with torch.no_grad():
            parameter.view(torch.int32).flatten()[0] ^= 1
        assert not torch.equal(trainer.checksum(), before)
        before = trainer.checksum()


def test_the_loss_is_scaled_by_the_networks_chroma_scale(photos, tmp_path, monkeypatch):
    scales = []
    content_loss = step.losses.content_loss

    def record(*arguments, scale, **options):
        scales.append(scale)
        return content_loss(*arguments, scale=scale, **options)

    monkeypatch.setattr(step.losses, "content_loss", record)
    config = tiny_config(photos, tmp_path / "run")
    config = replace(config, network=replace(config.network, chroma_scale=55.0))
    with pytest.raises(StopError):
        train(config, on_step=stop_at(1))
    assert scales == [55.0]


def test_pictures_of_the_run_are_no_training_photos(photos, tmp_path, capsys):
    config = tiny_config(photos, photos / "run", validation=(str(photos),))
    with pytest.raises(StopError):
        train(config, on_step=stop_at(6))
    capsys.readouterr()
    train(config, resume=True)
    text = capsys.readouterr().out
    assert "12 photos, 8 steps" in text
    assert "pictures of the run itself" in text
    assert "validation photos are training photos too" in text
    assert "the checkpoint was trained on" not in text


def test_the_best_step_is_exported(photos, tmp_path, capsys):
    """With a learning rate that ruins the network the initial weights are exported, and a message says so."""
    start = train(tiny_config(photos, tmp_path / "start"))
    stage = Stage(
        steps=4, batch=4, size=16, learning_rate=0.05, warmup=0, supervision=0.0, trains="color"
    )
    config = tiny_config(photos, tmp_path / "run", init=str(start), ema=0.0, stages=(stage,))
    weights = train(replace(config, validation=(str(photos),), validate_every=2))
    text = capsys.readouterr().out
    assert "No step was better on the validation photos than the initial weights." in text
    assert checkpoint.read_info(weights).card["steps"] == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "auto_psnr" in row] == [0, 2, 4]
    first, after = checkpoint.load(start), checkpoint.load(weights)
    for a, b in zip(first.parameters(), after.parameters(), strict=True):
        assert torch.equal(a, b)
