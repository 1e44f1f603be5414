"""Evaluation from end to end, export, and publishing with the Hub's real client."""

import json

import pytest
import torch

from scsnet import checkpoint

pytest.importorskip("skimage")
pytest.importorskip("accelerate")

from hub_server import HubServer
from training_run import make_photos

from training import evaluate, publish
from training.config import TrainConfig
from training.engine import model_card

FIGURES = {"step": 7} | {
    f"{name}_{kind}": value
    for name in ("auto", "own", "swap", "gray")
    for kind, value in (("psnr", 21.5), ("ab", 11.25), ("chroma", 0.75))
}


@pytest.fixture
def run(tmp_path, tiny_net):
    folder = tmp_path / "run"
    folder.mkdir()
    data = {"data": ("/somewhere/private/holiday",), "validation": ("/somewhere/private/town",)}
    config = TrainConfig(**data, output=str(folder), prior="/somewhere/private/prior.safetensors")
    model_card.export(tiny_net, folder / "weights.safetensors", config, 7, 12, FIGURES)
    return folder


def test_a_card_without_paths(run):
    card = checkpoint.read_info(run / "weights.safetensors").card
    assert card["training"]["data"] == ["holiday"]
    assert card["training"]["prior"] == "prior.safetensors"
    assert card["figures"] == FIGURES
    readme = (run / "README.md").read_text()
    assert readme.startswith("---\nlicense: other\nlibrary_name: scsnet")
    assert "private" not in readme
    assert "At step 7, on at most 48 photos of town: 48 px, magnified by 1." in readme
    assert "| none | 21.50 | 11.25 | 75% |" in readme
    assert "validation.png" not in readme  # there is none


def test_paler_weights(tiny_net, tmp_path):
    """a and b of every result are multiplied, L is not; the network that is exported stays as it was."""
    luminance = torch.rand(1, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        before = tiny_net.decode(tiny_net.encode(luminance), (24, 24))
        model_card.export(
            tiny_net, tmp_path / "w.safetensors", TrainConfig(), 7, 12, FIGURES, chroma=0.5
        )
        after = tiny_net.decode(tiny_net.encode(luminance), (24, 24))
        net = checkpoint.load(tmp_path / "w.safetensors", dtype=torch.float32).eval()
        paler = net.decode(net.encode(luminance), (24, 24))
    assert torch.equal(before, after)
    assert (before[:, 1:].abs() > 0.01).any()
    assert torch.allclose(paler, before * torch.tensor([1, 0.5, 0.5]).view(3, 1, 1), atol=2e-3)
    assert checkpoint.read_info(tmp_path / "w.safetensors").card["chroma"] == 0.5
    assert "multiplied by 0.5" in (tmp_path / "README.md").read_text()
    with pytest.raises(ValueError, match="above 0 and at most 2, got 0"):
        model_card.scale_chroma(net, 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the client's own
def test_publish(run, monkeypatch, capsys):
    options = ["--run", str(run), "--repo", "someone/colours"]
    publish.main([*options, "--dry-run"])
    assert "weights.safetensors" in capsys.readouterr().out
    with HubServer() as hub:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", "writer")
        publish.main(options)
        repo = hub.repos["someone/colours"]
        files = repo.commits[repo.refs["main"]]
    assert files["weights.safetensors"] == (run / "weights.safetensors").read_bytes()
    assert files["README.md"] == (run / "README.md").read_bytes()


def test_a_dry_run_says_what_would_go_and_what_is_wrong(run, capsys):
    publish.main(["--run", str(run), "--repo", "someone/colours", "--dry-run"])
    text = capsys.readouterr().out
    assert "weights.safetensors 0." in text
    assert "without validation.png" in text
    assert "nothing was sent" in text
    with pytest.raises(SystemExit):
        publish.main(["--run", str(run), "--repo", "some one/colours", "--dry-run"])
    assert "some one/colours" in capsys.readouterr().err


def test_publish_without_a_network_is_one_line(run, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "writer")
    for repo, message in (
        ("o/scsnet", "the connection to http://127.0.0.1:9 failed"),
        ("nox", "owner/name"),
    ):
        with pytest.raises(SystemExit):
            publish.main(["--run", str(run), "--repo", repo])
        assert message in capsys.readouterr().err


def test_publish_needs_a_finished_run(tmp_path, capsys):
    with pytest.raises(SystemExit):
        publish.main(["--run", str(tmp_path), "--repo", "a/b"])
    assert "let the run end" in capsys.readouterr().err


def test_evaluate(run, tmp_path, capsys):
    photos = make_photos(tmp_path / "photos", 3)
    (photos / "bad.png").write_bytes(b"")
    out = tmp_path / "figures"
    evaluate.main(
        [
            *("--weights", str(run / "weights.safetensors"), "--data", str(photos)),
            *("--output", str(out), "--size", "64", "--magnification", "4"),
            *("--pictures", "1", "--device", "cpu"),
        ]
    )
    text = capsys.readouterr().out
    assert "| gray + bicubic |" in text
    assert "FID n/a" in text
    assert "Left out:" in text
    values = json.loads((out / "figures.json").read_text())
    assert values["photos"] == 3
    assert values["rows"]["truth"]["psnr"] is None
    assert (
        values["rows"]["true colour + bicubic"]["psnr"] > values["rows"]["gray + bicubic"]["psnr"]
    )
    page = (out / "index.html").read_text()
    assert page.count("<section>") == 1
    assert page.count("<img") == 7
    assert 'src="pictures/000_00_truth.jpg"' in page
    assert (out / "pictures" / "000_00_truth.jpg").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cuda:7"], "is not available"),
        (["--device", "gpu"], "device must be one of auto, cuda, mps, cpu, got 'gpu'"),
        (["--limit", "-1"], "limit must be at least 0"),
        (["--modes", "own"], "modes are auto, self, random, dots, margins, got 'own'"),
        (["--wieghts", "x"], "did you mean --weights?"),
    ],
)
def test_evaluate_names_mistakes(run, photos, capsys, options, message):
    if torch.cuda.is_available() and "cuda:7" in options:
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        evaluate.main(["--weights", str(run), "--data", str(photos), *options])
    assert message in capsys.readouterr().err


def test_evaluate_of_what_is_no_weights(run, photos, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for weights, message in (
        (run, "got a folder"),
        (photos / "00.png", "00.png"),
        ("bundeld", "Checkpoint not found: bundeld"),
        ("hf:nobody/nothing", "HF_HUB_OFFLINE"),
    ):
        with pytest.raises(SystemExit):
            evaluate.main(["--weights", str(weights), "--data", str(photos), "--device", "cpu"])
        assert message in capsys.readouterr().err


def test_parameters_by_mode():
    from scsnet import SCSNet
    from training.evaluation.protocol import count_parameters

    with torch.device("meta"):
        net = SCSNet()
    automatic, referential = 9_954_441, 15_357_775
    assert count_parameters(net) == {
        "auto": automatic,
        "margins": automatic,
        "self": referential,
        "random": referential,
        "dots": referential,
    }
