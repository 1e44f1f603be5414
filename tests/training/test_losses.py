"""Losses by hand, and what they are computed from: VGG's features, the discriminator, distorted photos."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from training_run import make_vgg16

from training import losses
from training.data.references import draw_distortion, warp
from training.models.backbones import VGG
from training.models.discriminator import Discriminator


def test_content_loss_is_l1_or_huber_without_the_lightness_of_enlarged_targets():
    truth = torch.zeros(1, 3, 1, 2)
    prediction = torch.tensor([[[[5.0, -5.0]], [[10.0, -60.0]], [[0.0, 40.0]]]])
    l1 = [5, 5, 10, 60, 0, 40]
    assert losses.content_loss(prediction, truth) == pytest.approx(np.mean(l1) / 110)
    assert losses.content_loss(prediction, truth, scale=55) == pytest.approx(np.mean(l1) / 55)
    huber = [5, 5, 10**2 / 40, 2 * 60 - 40, 0, 40]
    loss = losses.content_loss(prediction, truth, huber_delta=40.0)
    assert loss == pytest.approx(np.mean(huber) / 110)
    two = (planes.expand(2, -1, -1, -1) for planes in (prediction, truth))
    loss = losses.content_loss(*two, enlarged=torch.tensor([True, False]))
    assert loss == pytest.approx((np.sum(l1[2:]) + np.sum(l1)) / 12 / 110)


def test_chroma_weight_pulls_strong_colours_more_and_keeps_the_mean():
    truth = torch.zeros(1, 3, 1, 2)
    truth[0, 1, 0, 1] = 80.0
    prediction = torch.zeros_like(truth, requires_grad=True)
    losses.content_loss(prediction, truth + 1e-3, chroma_weight=0.5).backward()
    dull, strong = prediction.grad[0, 1, 0].abs()
    assert strong / dull == pytest.approx(3.0, rel=1e-3)  # 1 + 0.5 * 80 / 20
    assert dull + strong == pytest.approx(2 / 110 / 6)
    assert (prediction.grad[0, 1, 0] < 0).all()  # towards the truth


def test_targets_move_towards_matched_colours():
    target, matched = torch.zeros(2, 3, 4, 4), torch.full((2, 2, 4, 4), 10.0)
    target[:, 0] = 70
    moved = losses.move_target(target, matched, torch.tensor([True, False]))
    assert torch.equal(moved[:, 0], target[:, 0])
    assert torch.allclose(moved[0, 1:], torch.full((2, 4, 4), 4.0))
    assert torch.equal(moved[1], target[1])


def test_perceptual_loss_is_the_weighted_sum():
    a = [torch.zeros(1, 2, 4, 4)] * 5
    b = [torch.full((1, 2, 4, 4), float(n)) for n in (1, 2, 3, 4, 5)]
    assert losses.perceptual_loss(a, b) == pytest.approx(1 / 32 + 2 / 16 + 3 / 8 + 4 / 4 + 5)
    assert losses.perceptual_loss(a[:3], b[:3]) == pytest.approx(1 / 32 + 2 / 16 + 3 / 8)


def test_adversarial_losses_are_equation_7():
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.5, -0.5])  # means 2 and 0
    for form, discriminator, generator in (
        ("paper", ((0.5 - 3) ** 2 + 3.5**2) / 2, (0.0 + 2.0**2) / 2 + (1.5**2 + 2.5**2) / 2),
        ("ralsgan", (2.0**2 + 0.5**2 + 1.5**2) / 4, (2.5**2 + 3.5**2 + 2.0**2 + 4.0**2) / 4),
    ):
        assert losses.discriminator_loss(real, fake, form) == pytest.approx(discriminator)
        assert losses.generator_loss(real, fake, form) == pytest.approx(generator)


def test_discriminator_sees_70_pixels():
    net = Discriminator(4).eval()
    picture = torch.zeros(1, 3, 128, 128, requires_grad=True)
    out = net(picture)
    assert out.shape == (1, 1, 14, 14)
    out[0, 0, 7, 7].backward()
    seen = picture.grad.abs().sum((0, 1)).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [70, 70]
    with pytest.raises(ValueError, match="32 x 32"):
        net(torch.zeros(1, 3, 16, 40))


def test_vgg_has_five_blocks_or_says_that_some_are_missing(tmp_path, capsys):
    whole, short = make_vgg16(tmp_path / "vgg16.safetensors"), tmp_path / "short.safetensors"
    net = VGG(str(whole))
    assert capsys.readouterr().out == ""
    assert [len(block) for block in net.blocks] == [2, 2, 3, 3, 1]
    shapes = [tuple(f.shape[1:]) for f in net(torch.rand(1, 3, 32, 32))]
    assert shapes == [(64, 32, 32), (6, 16, 16), (6, 8, 8), (6, 4, 4), (6, 2, 2)]
    assert not any(p.requires_grad for p in net.parameters())
    tensors = load_file(whole)
    save_file({k: v for k, v in tensors.items() if k.split(".")[1] in "0257"}, short)
    assert len(VGG(str(short)).blocks) == 2
    assert "2 of the 5 blocks" in capsys.readouterr().out
    save_file({"a.weight": torch.zeros(2)}, short)
    with pytest.raises(ValueError, match="no VGG"):
        VGG(str(short))


def test_vgg_of_caffe_takes_pixels_without_their_mean(tmp_path):
    weight = torch.randn(64, 3, 3, 3)
    arrays = {"block1_conv1.weight": weight.numpy(), "block1_conv1.bias": np.zeros(64, "f4")}
    np.savez(tmp_path / "vgg.npz", **arrays)
    rgb = torch.rand(1, 3, 8, 8)
    pixels = rgb * 255 - torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1)
    (features,) = VGG(str(tmp_path / "vgg.npz"))(rgb)
    expected = F.conv2d(pixels, weight, padding=1).relu() / 57.6
    assert torch.allclose(features, expected, atol=1e-4)


def test_elastic_copies_move_by_four_to_six_pixels_at_128():
    ramp = torch.linspace(0.5, 127.5, 128).expand(8, 1, 128, 128)
    distortion = draw_distortion(8, torch.Generator().manual_seed(0))._replace(flip=torch.ones(8))
    middle = (warp(ramp, distortion) - ramp)[..., 32:96, 32:96]
    assert 3 < middle.std() < 7
    mirrored = warp(ramp, distortion._replace(flip=-torch.ones(8), strength=torch.zeros(8)))
    assert torch.allclose(mirrored, ramp.flip(3), atol=1e-3)
