"""The semantic prior's trainer: which colours go with which gray pictures."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_prior import TINY, add_prior
from training_run import refuse

from scsnet import checkpoint, prior
from scsnet.color import rgb_to_lab
from scsnet.prior import EfficientNetLite, SemanticPrior
from training import train_prior
from training.data.prior_photos import convert_to_gray
from training.models.backbones import load_efficientnet

GREEN, RED = (120, 230, 120), (120, 20, 20)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(prior, "EFFICIENTNET_LITE2", TINY)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Bright photos are green and dark photos red, with slight noise."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(16):
        noise = np.random.default_rng(i).normal(0, 6, (64, 64, 1))
        pixels = np.clip(np.array(GREEN if i % 2 else RED) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    (folder / "broken.avif").write_bytes(b"no photo")
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Random weights with the published names, a gray picture, and its fine and its last features.

    Computed with explicit batch norm and TensorFlow's definition of SAME padding.
    """
    torch.manual_seed(0)
    weights, gray, outputs = {}, torch.rand(1, 1, 61, 90), []

    def step(x, conv, norm, width, size=1, stride=1, act=True):
        inputs, groups = (1, width) if "depthwise" in conv else (x.shape[1], 1)
        weight = torch.rand(width, inputs, size, size)
        weights[f"{conv}.weight"] = weight = weight / weight.sum((1, 2, 3), keepdim=True)
        lows = {"running_mean": 0, "running_var": 0.8, "weight": 0.8, "bias": 0}
        norms = {f"{norm}.{kind}": low + 0.4 * torch.rand(width) for kind, low in lows.items()}
        weights.update(norms)
        total = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in x.shape[2:]]
        (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in total)
        x = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, stride=stride, groups=groups)
        x = F.batch_norm(x, *norms.values(), eps=1e-3)
        return x.clamp(0, 6) if act else x

    rgb = gray.expand(-1, 3, -1, -1) * 255
    x = step((rgb - 127) / 128, "_conv_stem", "_bn0", TINY.stem, 3, 2)
    for stage in TINY.stages:
        for stride in [stage.stride, 1][: stage.blocks]:
            y, block = x, f"_blocks.{len(outputs)}"
            if outputs:  # the first block does not expand
                wide = stage.expansion * x.shape[1]
                y = step(y, f"{block}._expand_conv", f"{block}._bn0", wide)
            depth = y.shape[1], stage.kernel, stride
            y = step(y, f"{block}._depthwise_conv", f"{block}._bn1", *depth)
            y = step(y, f"{block}._project_conv", f"{block}._bn2", stage.width, act=False)
            x = x + y if y.shape == x.shape else y
            outputs.append(x)
    features = outputs[5], step(x, "_conv_head", "_bn1", TINY.top)
    file = tmp_path_factory.mktemp("weights") / "efficientnet.pth"
    torch.save(weights, file)
    return file, gray, features


@pytest.fixture
def run(photos, published, tmp_path):
    """Train with the given options; return the weights."""

    def run(name, options):
        output = tmp_path / f"{name}.safetensors"
        start = "" if "--init" in options else f"--efficientnet {published[0]}"
        inputs = f"--data {photos} {start} --output {output}"
        train_prior.main(f"{inputs} --workers 0 --batch 8 --size 64 {options}".split())
        return load_file(output)

    return run


def test_it_learns_what_goes_with_what(run, photos, tmp_path):
    options = "--steps 60 --learning-rate 1e-2 --degrade 0 --margins 0.2 --validate-every 60"
    weights = run("prior", f"{options} --validation {photos}")
    net = SemanticPrior(TINY).eval()
    net.load_state_dict(weights)
    for color, sign in ((GREEN, -1), (RED, 1)):
        gray = convert_to_gray(np.full((64, 64, 3), color, np.uint8))
        logits, _ = net(torch.from_numpy(gray).view(1, 1, 64, 64) / 255)
        assert sign * net.compute_mean_color(logits)[:, 0].mean() > 10
    rows = [json.loads(row) for row in (tmp_path / "prior.log.jsonl").read_text().splitlines()]
    assert rows[-1][f"{photos.stem}_ab"] > 50


def test_resumed_run_ends_as_one_that_ran_through(run, monkeypatch):
    whole = run("whole", "--steps 6")
    learn = train_prior.Trainer.learn

    def stop(self, batch):
        if self.step == 4:
            raise KeyboardInterrupt
        return learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(train_prior.Trainer, "learn", stop)
        with pytest.raises(SystemExit, match="130"):
            run("parts", "--steps 6 --save-every 3")
    parts = run("parts", "--steps 6 --save-every 3 --resume")
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_init_trains_the_prior_of_weights_further(run, tiny_net, tmp_path):
    net = add_prior(tiny_net)
    checkpoint.save(tmp_path / "net.safetensors", net, dtype=torch.float32)
    before = net.color_branch.guidance.prior.state_dict()
    after = run("further", f"--init {tmp_path}/net.safetensors --steps 1")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    kept = {"palette", *(name for name in before if ".depthwise." in name)}
    assert changed == before.keys() - kept


def test_efficientnet_is_the_published_one(published):
    file, gray, expected = published
    net = EfficientNetLite(TINY).eval()
    net.load_state_dict(load_efficientnet(str(file)))
    for features, target in zip(net(gray), expected, strict=True):
        assert features.shape == target.shape
        assert torch.allclose(features, target, atol=1e-4)


def test_gray_has_the_lightness_of_the_photo():
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    planes = torch.from_numpy(rgb).permute(2, 0, 1) / 255
    gray = torch.from_numpy(convert_to_gray(rgb)).expand(3, -1, -1) / 255
    assert torch.allclose(rgb_to_lab(gray)[0], rgb_to_lab(planes)[0], atol=0.3)


def test_mistakes_are_named(photos, published, weights, tmp_path):
    other, broken = tmp_path / "other.safetensors", tmp_path / "broken.pth"
    save_file({"weight": torch.zeros(1)}, other)
    broken.write_bytes(b"junk")
    data, trunk = f"--data {photos}", f"--efficientnet {published[0]}"
    output = f"--output {tmp_path}/t.safetensors"
    for line, message in (
        (f"{output} {trunk}", "--data"),
        (f"{output} {data}", "efficientnet or init"),
        (f"{output} {data} --init {weights}", "no prior"),
        (f"--output t.npz {data} {trunk}", "t.npz"),
        (f"{output} {data} --efficientnet {other}", "no EfficientNet"),
        (f"{output} {data} --efficientnet {broken}", "not a readable"),
        (f"{output} {data} {trunk} --resume", "not found"),
        (f"{output} {data} {trunk} --size 100", "of 32"),
    ):
        assert message in refuse(train_prior.main, line)
