"""The semantic prior: what it adds to both pictures' features, and weights files with and without it."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_prior import TINY, add_prior

from scsnet import checkpoint
from scsnet.color import lab_to_rgb


@pytest.fixture(autouse=True)
def small_prior(monkeypatch):
    monkeypatch.setattr("scsnet.prior.EFFICIENTNET_LITE2", TINY)


def test_prior_is_added_to_the_features_of_both_pictures(tiny_net):
    net = add_prior(tiny_net)
    luminance = torch.rand(1, 1, 32, 24) * 2 - 1
    lab = torch.cat([luminance, torch.zeros(1, 2, 32, 24)], 1)
    guidance = net.color_branch.guidance
    # By hand: gray of that L*, at 288 x 224 pixels; hidden features and two mean colours of it.
    cie = torch.cat([luminance * 50 + 50, torch.zeros(1, 2, 32, 24)], 1)
    gray = lab_to_rgb(cie, clip=True)[:, :1]
    gray = F.interpolate(gray, (288, 224), mode="bicubic", antialias=True).clamp(0, 1)
    logits, z = guidance.prior(gray)
    colors = [
        torch.einsum("bqhw,qc->bchw", (logits / t).softmax(1), guidance.prior.palette) / 4
        for t in (1.0, 0.6)
    ]
    known = torch.cat([2 * z, *colors], 1)
    for projection, compute_features in (
        (guidance.source, lambda net: net.encode(luminance).source),
        (guidance.reference, lambda net: net.color_branch.encode_reference(lab)),
    ):
        added = compute_features(net) - compute_features(tiny_net)
        expected = F.interpolate(projection(known), (8, 6), mode="bilinear")
        assert torch.allclose(added, expected, atol=1e-4)
        assert added.abs().max() > 0.01


def test_weights_file_older_than_the_prior_loads(tiny_net, tmp_path):
    new, old = tmp_path / "new.safetensors", tmp_path / "old.safetensors"
    checkpoint.save(new, tiny_net)
    with safe_open(new, "pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["config"])
    del config["prior"]
    save_file(load_file(new), old, metadata | {"config": json.dumps(config)})
    loaded = checkpoint.load(old, dtype=torch.float32)
    assert loaded.config == tiny_net.config
    luminance = torch.rand(1, 1, 16, 16)
    assert torch.equal(loaded.encode(luminance).color, tiny_net.encode(luminance).color)
