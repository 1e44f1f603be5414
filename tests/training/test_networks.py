"""Networks of others that losses and figures need: from the Hub, and against their own libraries.

Their real weights are not at hand: files of the same layout stand in for them.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import HubServer
from PIL import Image
from training_run import losses, make_photos, make_vgg16

pytest.importorskip("accelerate")
pytest.importorskip("skimage")

from training.config.train_config import VGG16
from training.evaluation import fid_lpips


@pytest.mark.slow
def test_vgg16_comes_from_the_hub(root, tmp_path):
    """Runs train.py with the Hub's real client; the second run works offline from the cache."""
    make_photos(tmp_path / "photos", 4)
    owner, repo, file = VGG16.removeprefix("hf:").split("/")
    options = (
        *(
            "--data",
            str(tmp_path / "photos"),
            "--perceptual",
            "5",
            "--trains",
            "everything",
            "--steps",
            "2",
        ),
        *("--network.width", "8", "--network.depth", "1", "--size", "16", "--batch", "2"),
        *("--magnification", "2", "2", "--window", "32", "--log-every", "1", "--trackers"),
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path / "home"), "NO_PROXY": "*", "OMP_NUM_THREADS": "1"}

    def train(output, **extra):
        command = [
            sys.executable,
            str(root / "training" / "train.py"),
            *options,
            "--output",
            output,
        ]
        return subprocess.run(
            command, env=environment | extra, cwd=tmp_path, capture_output=True, text=True
        )

    with HubServer() as hub:
        hub.commit(
            f"{owner}/{repo}", {file: make_vgg16(tmp_path / "vgg16.safetensors").read_bytes()}
        )
        done = train("one", HF_ENDPOINT=hub.url)
        assert done.returncode == 0, done.stderr
        assert any(request.server == "store" for request in hub.requests)
    done = train("two", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    rows = losses(tmp_path / "one")
    assert all(row["perceptual"] > 0 for row in rows.values())
    assert rows == losses(tmp_path / "two")
    environment["HF_HOME"] = str(tmp_path / "empty")
    done = train("three", HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert f"{owner}/{repo}" in done.stderr.splitlines()[-1]


@pytest.fixture
def pictures(tmp_path):
    """Two folders of 8 pictures each."""
    rng = np.random.default_rng(0)
    folders = {}
    for name, low in (("truth", 0), ("auto", 60)):
        (tmp_path / name).mkdir()
        folders[name] = []
        for i in range(8):
            small = Image.fromarray(rng.integers(low, 256, (6, 6, 3), dtype=np.uint8))
            picture = small.resize((96, 96), Image.Resampling.BICUBIC)
            picture.save(tmp_path / name / f"{i}.png")
            folders[name].append(np.asarray(picture))
    return folders


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_fid_and_kid_are_those_of_torch_fidelity(pictures, tmp_path):
    fidelity = pytest.importorskip("torch_fidelity")
    inception = fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3
    torch.manual_seed(0)
    weights = tmp_path / "inception.pth"
    with pytest.MonkeyPatch.context() as patch:  # the constructor wants a file: give it none
        patch.setattr(torch, "load", lambda *a, **k: {})
        patch.setattr(inception, "load_state_dict", lambda *a, **k: None)
        net = inception("stand-in", ["2048"], feature_extractor_weights_path="none")
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(net.state_dict(), weights)
    ours = fid_lpips.Extras(str(weights), with_lpips=False)
    assert "fid" not in ours.missing, ours.missing
    for truth, auto in zip(pictures["truth"], pictures["auto"], strict=True):
        ours.add({"truth": truth, "auto": auto})
    row = ours.rows()["auto"]
    theirs = fidelity.calculate_metrics(
        input1=str(tmp_path / "auto"),
        input2=str(tmp_path / "truth"),
        cuda=False,
        fid=True,
        kid=True,
        kid_subset_size=8,
        kid_subsets=2,
        feature_extractor_weights_path=str(weights),
        samples_find_ext="png",
        cache=False,
        verbose=False,
    )
    assert row["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert row["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_lpips_is_the_formula(pictures, tmp_path, monkeypatch):
    """Of AlexNet's features with the weights that come with torchmetrics, both taken by hand."""
    torchvision = pytest.importorskip("torchvision")
    torchmetrics = pytest.importorskip("torchmetrics")
    torch.manual_seed(0)
    alexnet = torchvision.models.alexnet(weights=None).eval()
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    file = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    torch.save(alexnet.state_dict(), cache / file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    ours = fid_lpips.Extras("", with_lpips=True)
    assert "lpips" not in ours.missing, ours.missing
    truth, auto = pictures["truth"][0], pictures["auto"][0]
    ours.add({"truth": truth, "auto": auto})
    folder = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models"
    linear = torch.load(folder / "alex.pth", map_location="cpu", weights_only=True)
    shift, scale = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ([-0.03, -0.088, -0.188], [0.458, 0.448, 0.45])
    )

    def features(picture):
        x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255 * 2 - 1
        x, found = (x - shift) / scale, []
        for layer in alexnet.features:
            x = layer(x)
            if isinstance(layer, torch.nn.ReLU):
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-8))
        return found

    with torch.no_grad():
        expected = sum(
            (linear[f"lin{n}.model.1.weight"] * (a - b).square()).sum(1).mean()
            for n, (a, b) in enumerate(zip(features(truth), features(auto), strict=True))
        )
    assert ours.rows()["auto"]["lpips"] == pytest.approx(float(expected), rel=1e-3)


def test_lpips_without_its_library_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", None)
    found = fid_lpips.Extras("", with_lpips=True)
    assert "torchmetrics" in found.missing["lpips"]
