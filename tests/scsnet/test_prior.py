"""The semantic prior inside the network: what it adds, and that nothing else changes."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_prior import TINY

from scsnet import SCSNet, SCSNetConfig, checkpoint, prior
from scsnet.color import lab_to_rgb
from scsnet.prior import SemanticPrior, compute_prior_shape, lightness_to_gray


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_stand_beside_the_papers():
    config = replace(SCSNetConfig.paper(), prior="efficientnet_lite2")
    with torch.device("meta"):
        net = SCSNet(config)
    guidance = net.color_branch.guidance
    assert count(guidance.prior) == 6_464_866
    assert count(guidance.source) == count(guidance.reference) == 452 * 256 + 256
    assert count(net) - count(guidance) == 15_357_775
    assert SCSNetConfig.paper().prior == "none"


@pytest.fixture
def pair(tiny_config, monkeypatch):
    """A network without and one with a prior, of equal weights otherwise."""
    monkeypatch.setattr(prior, "EFFICIENTNET_LITE2", TINY)
    torch.manual_seed(0)
    plain = SCSNet(tiny_config).eval().requires_grad_(False)
    guided = SCSNet(replace(tiny_config, prior="efficientnet_lite2")).eval().requires_grad_(False)
    guided.load_state_dict(plain.state_dict(), strict=False)
    guided.color_branch.guidance.prior.palette.normal_(0, 30)
    return plain, guided


def switch_on(net):
    for projection in (net.color_branch.guidance.source, net.color_branch.guidance.reference):
        torch.nn.init.normal_(projection.weight, std=0.02)
    return net


def run(net, luminance, references=(), size=(40, 50)):
    encoded = net.encode_reference(references) if references else None
    return net.decode(net.encode(luminance, encoded), size)


def test_it_begins_without_effect(pair):
    luminance, lab = torch.rand(1, 1, 21, 30), torch.rand(1, 3, 24, 18)
    for references in ([], [lab]):
        plain, guided = (run(net, luminance, references) for net in pair)
        assert torch.equal(plain, guided)


def test_it_is_added_to_both_pictures_features(pair):
    plain, guided = pair
    switch_on(guided)
    luminance = torch.rand(1, 1, 32, 24) * 2 - 1
    lab = torch.cat([luminance, torch.zeros(1, 2, 32, 24)], 1)
    guidance = guided.color_branch.guidance
    # by hand: gray of that L*, 288 x 224 pixels, hidden features and two mean colours
    lightness = luminance * 50 + 50
    gray = lab_to_rgb(torch.cat([lightness, torch.zeros(1, 2, 32, 24)], 1), clip=True)[:, :1]
    gray = F.interpolate(gray, (288, 224), mode="bicubic", antialias=True).clamp(0, 1)
    logits, z = guidance.prior(gray)
    colors = [
        torch.einsum("bqhw,qc->bchw", (logits / t).softmax(1), guidance.prior.palette) / 4
        for t in (1.0, 0.6)
    ]
    known = torch.cat([2 * z, *colors], 1)
    for projection, features in (
        (guidance.source, lambda net: net.encode(luminance).source),
        (
            guidance.reference,
            lambda net: net.color_branch.encode_reference(lab),
        ),
    ):
        added = features(guided) - features(plain)
        expected = F.interpolate(projection(known), (8, 6), mode="bilinear")
        assert torch.allclose(added, expected, atol=1e-4)
        assert added.abs().max() > 0.01


def test_batches_windows_and_sizes(pair):
    net = switch_on(pair[1])
    luminance, lab = torch.rand(3, 1, 20, 17), torch.rand(3, 3, 24, 20)
    together = run(net, luminance, [lab])
    for i in range(3):
        alone = run(net, luminance[i : i + 1], [lab[i : i + 1]])
        assert torch.allclose(together[i : i + 1], alone, atol=1e-4)
    features = net.encode(luminance[:1])
    whole = net.decode(features, (61, 53))
    part = net.decode(features, (61, 53), (10, 20, 30, 15))
    assert torch.allclose(part, whole[..., 10:40, 20:35], atol=1e-5)
    for size in ((1, 1), (1, 90), (700, 3)):
        assert torch.isfinite(run(net, torch.rand(1, 1, *size), size=(5, 5))).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(pair, dtype):
    net = switch_on(pair[1])
    luminance, lab = torch.rand(1, 1, 32, 32), torch.rand(1, 3, 32, 32)
    exact = run(net, luminance, [lab])
    features = net.to(dtype).encode(luminance, net.encode_reference([lab]))
    assert features.source.dtype == dtype
    error = (net.decode(features, (40, 50)) - exact).abs().max()
    assert error / exact.abs().max() < 0.1


def test_a_file_keeps_it(pair, tmp_path):
    net = switch_on(pair[1])
    checkpoint.save(tmp_path / "a.safetensors", net)
    loaded = checkpoint.load(tmp_path / "a.safetensors")
    assert loaded.config.prior == "efficientnet_lite2"
    luminance = torch.rand(1, 1, 16, 16)
    assert torch.equal(run(loaded, luminance), run(net, luminance))


def test_a_file_of_before_the_prior_loads(pair, tmp_path):
    plain, _ = pair
    new, old = tmp_path / "new.safetensors", tmp_path / "old.safetensors"
    checkpoint.save(new, plain)
    with safe_open(new, "pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["config"])
    del config["prior"]
    save_file(load_file(new), old, metadata | {"config": json.dumps(config)})
    loaded = checkpoint.load(old)
    assert loaded.config == plain.config
    luminance = torch.rand(1, 1, 16, 16)
    assert torch.equal(run(loaded, luminance), run(plain, luminance))


def test_the_prior_sees_about_256_pixels_square():
    assert compute_prior_shape(128, 128) == (256, 256)
    assert compute_prior_shape(16, 16) == (256, 256)
    assert compute_prior_shape(3000, 2000) == (320, 224)
    assert compute_prior_shape(1, 1000) == (32, 2048)
    for height, width in ((7, 5), (900, 1600), (2000, 500)):
        rows, columns = compute_prior_shape(height, width)
        assert rows % 32 == columns % 32 == 0
        assert rows * columns <= 1.25 * 256**2


def test_the_mean_colour_is_annealed():
    net = SemanticPrior(TINY)
    net.palette[0], net.palette[1] = torch.tensor([40.0, 0.0]), torch.tensor([-40.0, 0.0])
    logits = torch.full((1, len(net.palette), 1, 1), -50.0)
    logits[:, 0], logits[:, 1] = 1.0, 0.0
    mean, cold = (net.compute_mean_color(logits, t)[0, 0].item() for t in (1.0, 0.5))
    assert mean == pytest.approx(40 * torch.tanh(torch.tensor(0.5)).item(), abs=1e-3)
    assert cold == pytest.approx(40 * torch.tanh(torch.tensor(1.0)).item(), abs=1e-3)


def test_gray_of_a_lightness():
    lightness = torch.linspace(0, 100, 51).view(1, 1, 1, -1)
    lab = torch.cat([lightness, torch.zeros(1, 2, 1, 51)], 1)
    assert torch.allclose(
        lightness_to_gray(lightness), lab_to_rgb(lab, clip=True)[:, :1], atol=1e-5
    )
