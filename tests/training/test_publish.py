"""Weights with their card, the Hub by its real client, and evaluation from end to end."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from training_run import losses, make_photos, make_vgg16, refuse, tiny_config

from scsnet import checkpoint
from training import evaluate, publish
from training.config import TrainConfig
from training.config.train_config import VGG16
from training.engine import model_card
from training.engine.loop import train


def test_exported_chroma_can_be_scaled(tiny_net, tmp_path):
    """a and b of every result are multiplied, L is not; the network itself stays as it was."""
    luminance, file = torch.rand(1, 1, 16, 16) * 2 - 1, tmp_path / "w.safetensors"

    def colorize(net):
        return net.decode(net.encode(luminance), (24, 24))

    kinds = [
        f"{name}_{kind}" for name in model_card.REFERENCES for kind in ("psnr", "ab", "chroma")
    ]
    export = partial(model_card.export, figures=dict.fromkeys(["step", *kinds], 1.0))
    before = colorize(tiny_net)
    export(tiny_net, file, TrainConfig(), 7, 12, chroma=0.5)
    assert torch.equal(colorize(tiny_net), before)
    assert (before[:, 1:].abs() > 0.01).any()
    paler = colorize(checkpoint.load(file, dtype=torch.float32).eval())
    assert torch.allclose(paler, before * torch.tensor([1, 0.5, 0.5]).view(3, 1, 1), atol=2e-3)
    assert checkpoint.read_info(file).card["chroma"] == 0.5
    assert "multiplied by 0.5" in (tmp_path / "README.md").read_text()
    with pytest.raises(ValueError, match="above 0 and at most 2, got 0"):
        export(tiny_net, file, TrainConfig(), 7, 12, chroma=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the client's own
def test_weights_and_card_are_published(tiny_net, hub, tmp_path, monkeypatch, capsys):
    (run := tmp_path / "run").mkdir()
    model_card.export(tiny_net, run / "weights.safetensors", TrainConfig(), 7, 12, {})
    options = ["--run", str(run), "--repo", "someone/colours"]
    publish.main([*options, "--dry-run"])
    text = capsys.readouterr().out
    for words in ("weights.safetensors 0.", "without validation.png", "nothing was sent"):
        assert words in text
    monkeypatch.setenv("HF_TOKEN", "writer")
    publish.main(options)
    files = hub.files[hub.repos["someone/colours"]["main"]]
    for name in ("weights.safetensors", "README.md"):
        assert files[name] == (run / name).read_bytes()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    for folder, repo, message in (
        (run, "o/scsnet", "the connection to http://127.0.0.1:9 failed"),
        (run, "nox", "owner/name"),
        (run, "some:one/colours", "some:one/colours"),
        (tmp_path, "a/b", "let the run end"),
    ):
        assert message in refuse(publish.main, f"--run {folder} --repo {repo}")


def test_evaluate_writes_figures_and_a_page(weights, tmp_path, capsys):
    photos, out = make_photos(tmp_path / "photos", 3), tmp_path / "figures"
    (photos / "bad.png").write_bytes(b"")
    evaluate.main(
        f"--weights {weights} --data {photos} --output {out} --size 64 --magnification 4 "
        "--pictures 1 --device cpu".split()
    )
    text = capsys.readouterr().out
    assert all(words in text for words in ("| gray + bicubic |", "FID n/a", "Left out:"))
    values = json.loads((out / "figures.json").read_text())
    rows = values["rows"]
    assert values["photos"] == 3
    assert rows["truth"]["psnr"] is None
    assert rows["true colour + bicubic"]["psnr"] > rows["gray + bicubic"]["psnr"]
    page = (out / "index.html").read_text()
    assert (page.count("<section>"), page.count("<img")) == (1, 7)
    assert 'src="pictures/000_00_truth.jpg"' in page
    assert (out / "pictures" / "000_00_truth.jpg").exists()


def test_evaluate_names_mistakes(photos, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for options, message in (
        (f"--weights {photos}", "got a folder"),
        (f"--weights {photos}/00.png", "00.png"),
        ("--weights bundeld", "Checkpoint not found: bundeld"),
        ("--weights hf:nobody/nothing", "HF_HUB_OFFLINE"),
        ("--device cuda:7", "is not available"),
        ("--device gpu", "device must be one of auto, cuda, mps, cpu, got 'gpu'"),
        ("--limit -1", "limit must be at least 0"),
        ("--modes own", "modes are auto, self, random, dots, margins, got 'own'"),
        ("--wieghts x", "did you mean --weights?"),
    ):
        assert message in refuse(evaluate.main, f"--data {photos} {options}")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_vgg16_comes_from_the_hub_once(hub, photos, tmp_path, monkeypatch):
    owner, repo, file = VGG16.removeprefix("hf:").split("/")
    content = make_vgg16(tmp_path / "vgg16.safetensors").read_bytes()
    hub.commit(f"{owner}/{repo}", {file: content})
    config = tiny_config(photos, tmp_path / "one")
    stage = replace(config.stages[1], steps=2, adversarial=0.0, perceptual=5.0)
    train(config := replace(config, stages=(stage,)))
    first = losses(tmp_path / "one")
    assert all(row["perceptual"] > 0 for row in first.values())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    train(replace(config, output=str(tmp_path / "two")))
    assert losses(tmp_path / "two") == first
