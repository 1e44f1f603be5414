"""Networks of others that losses and metrics need: from the Hub, and against their own libraries.

Their real weights are not at hand: files of the same layout stand in for them.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hub_server import HubServer
from PIL import Image
from training_run import losses, make_vgg16

from training.config.train_config import VGG16
from training.evaluation import fid_lpips


@pytest.mark.slow
def test_vgg16_comes_from_the_hub_once(root, photos, tmp_path):
    """train.py fetches it with the Hub's real client; the second run works offline from the cache."""
    owner, repo, file = VGG16.removeprefix("hf:").split("/")
    options = (
        f"--data {photos} --perceptual 5 --trains everything --steps 2 --network.width 8 "
        "--network.depth 1 --size 16 --batch 2 --magnification 2 2 --window 32 --log-every 1 "
        "--trackers"
    ).split()
    shared = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    shared |= {"NO_PROXY": "*", "OMP_NUM_THREADS": "1"}

    def train(output, home, **extra):
        return subprocess.run(
            [sys.executable, root / "training" / "train.py", *options, "--output", output],
            env=shared | {"HF_HOME": str(tmp_path / home)} | extra,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    with HubServer() as hub:
        content = make_vgg16(tmp_path / "vgg16.safetensors").read_bytes()
        hub.commit(f"{owner}/{repo}", {file: content})
        done = train("one", "home", HF_ENDPOINT=hub.url)
        assert done.returncode == 0, done.stderr
        assert any(request.server == "store" for request in hub.requests)
    done = train("two", "home", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    rows = losses(tmp_path / "one")
    assert all(row["perceptual"] > 0 for row in rows.values())
    assert rows == losses(tmp_path / "two")
    done = train("three", "empty", HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert f"{owner}/{repo}" in done.stderr.splitlines()[-1]


@pytest.fixture
def pictures(tmp_path):
    """Two folders of 8 pictures each, also as {folder: [picture, ...]}."""
    rng = np.random.default_rng(0)
    folders = {}
    for name, low in (("truth", 0), ("auto", 60)):
        (tmp_path / name).mkdir()
        for i in range(8):
            small = Image.fromarray(rng.integers(low, 256, (6, 6, 3), dtype=np.uint8))
            picture = small.resize((96, 96), Image.Resampling.BICUBIC)
            picture.save(tmp_path / name / f"{i}.png")
            folders.setdefault(name, []).append(np.asarray(picture))
    return folders


def measure(extras, pictures):
    """Return the metrics of the row "auto"."""
    assert not {"fid", "lpips"} <= extras.missing.keys(), extras.missing
    for truth, auto in zip(pictures["truth"], pictures["auto"], strict=True):
        extras.add({"truth": truth, "auto": auto})
    return extras.rows()["auto"]


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
    row = measure(fid_lpips.Extras(str(weights), with_lpips=False), pictures)
    folders = {"input1": str(tmp_path / "auto"), "input2": str(tmp_path / "truth")}
    options = {"fid": True, "kid": True, "kid_subset_size": 8, "kid_subsets": 2, "cuda": False}
    files = {"feature_extractor_weights_path": str(weights), "samples_find_ext": "png"}
    theirs = fidelity.calculate_metrics(**folders, **options, **files, cache=False, verbose=False)
    assert row["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert row["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_lpips_is_that_of_torchmetrics(pictures, tmp_path, monkeypatch):
    torchvision = pytest.importorskip("torchvision")
    functional = pytest.importorskip("torchmetrics.functional.image")
    torch.manual_seed(0)
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    file = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), cache / file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    row = measure(fid_lpips.Extras("", with_lpips=True), pictures)
    auto, truth = (
        torch.from_numpy(np.stack(pictures[name])).permute(0, 3, 1, 2) / 127.5 - 1
        for name in ("auto", "truth")
    )
    expected = functional.learned_perceptual_image_patch_similarity(auto, truth, net_type="alex")
    assert row["lpips"] == pytest.approx(float(expected), rel=1e-3)


def test_lpips_without_its_library_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", None)
    found = fid_lpips.Extras("", with_lpips=True)
    assert "torchmetrics" in found.missing["lpips"]
