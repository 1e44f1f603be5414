"""Losses: values by hand, gradients that point the right way."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from training_run import make_vgg16

from training import losses
from training.data.degradations import degrade
from training.data.references import draw_distortion, warp
from training.models.backbones import VGG
from training.models.discriminator import Discriminator

FORMS = ("ralsgan", "paper")


def test_content_points_towards_the_truth():
    predicted = torch.zeros(1, 3, 2, 2, requires_grad=True)
    truth = torch.full((1, 3, 2, 2), 11.0)
    loss = losses.content_loss(predicted, truth)
    assert loss.item() == pytest.approx(0.1)
    loss.backward()
    assert (predicted.grad < 0).all()


def test_soft_differences_count_by_their_square():
    truth = torch.zeros(1, 3, 1, 2)
    predicted = torch.tensor([[[[5.0, -5.0]], [[10.0, -60.0]], [[0.0, 40.0]]]])
    by_hand = [5, 5, 10**2 / 40, 2 * 60 - 40, 0, 40]
    loss = losses.content_loss(predicted, truth, huber_delta=40.0)
    assert loss.item() == pytest.approx(np.mean(by_hand) / 110)


def test_l1_settles_at_the_median_and_squares_at_the_mean():
    truth = torch.zeros(1, 3, 1, 5)
    truth[:, 1, :, 3:] = 30.0  # two of five have a colour
    for huber_delta, settled in ((0.0, 0.0), (80.0, 12.0)):
        guess = torch.tensor(5.0, requires_grad=True)
        descent = torch.optim.Adam([guess], lr=0.2)
        for _ in range(400):
            predicted = torch.stack([torch.zeros(()), guess, torch.zeros(())]).view(1, 3, 1, 1)
            loss = losses.content_loss(predicted.expand_as(truth), truth, huber_delta=huber_delta)
            descent.zero_grad()
            loss.backward()
            descent.step()
        assert guess.item() == pytest.approx(settled, abs=0.5)


def test_chroma_weight_pulls_strong_colours_more_and_keeps_the_mean():
    truth = torch.zeros(1, 3, 1, 2)
    truth[0, 1, 0, 1] = 80.0
    predicted = torch.zeros_like(truth, requires_grad=True)
    losses.content_loss(predicted, truth + 1e-3, chroma_weight=0.5).backward()
    dull, strong = predicted.grad[0, 1, 0].abs()
    assert strong / dull == pytest.approx(3.0, rel=1e-3)  # 1 + 0.5 * 80 / 20
    assert dull + strong == pytest.approx(2 / 110 / 6)


def test_perceptual_is_the_weighted_sum():
    a = [torch.zeros(1, 2, 4, 4)] * 5
    b = [torch.full((1, 2, 4, 4), float(n)) for n in (1, 2, 3, 4, 5)]
    assert losses.perceptual_loss(a, b) == pytest.approx(1 / 32 + 2 / 16 + 3 / 8 + 4 / 4 + 5)
    assert losses.perceptual_loss(a[:3], b[:3]) == pytest.approx(1 / 32 + 2 / 16 + 3 / 8)


@pytest.mark.parametrize("form", FORMS)
def test_the_adversaries_pull_the_fake_in_opposite_directions(form):
    """The gradients of discriminator and generator loss with respect to the output for fakes have opposite signs, in both forms."""
    signs = []
    for loss in (losses.discriminator_loss, losses.generator_loss):
        real = torch.tensor([[[[0.1, -0.1]]]])
        fake = torch.tensor([[[[-0.2, 0.2]]]], requires_grad=True)
        loss(real, fake, form).backward()
        signs.append(torch.sign(fake.grad.sum()))
    assert signs[0] == -signs[1] != 0


def test_canonical_polarity_puts_real_above_fake():
    real, fake = (
        torch.zeros(1, 1, 1, 4, requires_grad=True),
        torch.zeros(1, 1, 1, 4, requires_grad=True),
    )
    losses.discriminator_loss(real, fake, "ralsgan").backward()
    assert (real.grad < 0).all()  # descent raises D(real)
    assert (fake.grad > 0).all()


def test_equation_7_to_the_letter():
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.5, -0.5])
    assert losses.discriminator_loss(real, fake, "paper") == pytest.approx(
        ((0.5 - 3) ** 2 + 3.5**2) / 2
    )
    expected = (0.0 + 2.0**2) / 2 + (1.5**2 + 2.5**2) / 2
    assert losses.generator_loss(real, fake, "paper") == pytest.approx(expected)


@pytest.mark.parametrize("form", FORMS)
def test_generator_can_make_the_discriminator_fail(form):
    """A descent step of the generator moves D's output for fakes towards its output for reals."""
    torch.manual_seed(0)
    net = Discriminator(4)
    real, fake = torch.randn(2, 3, 32, 32), 0.3 * torch.randn(2, 3, 32, 32)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(30):
        optimizer.zero_grad()
        losses.discriminator_loss(*net(torch.cat([real, fake])).chunk(2), form).backward()
        optimizer.step()
    net.requires_grad_(False).eval()
    fake.requires_grad_(True)
    scores = net(torch.cat([real, fake]))
    gap = (scores[:2].mean() - scores[2:].mean()).abs()
    losses.generator_loss(*scores.chunk(2), form).backward()
    after = net(torch.cat([real, fake.detach() - 50 * fake.grad]))
    assert (after[:2].mean() - after[2:].mean()).abs() < gap


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


@pytest.fixture
def vgg16_file(tmp_path):
    return str(make_vgg16(tmp_path / "vgg16.safetensors"))


def test_missing_blocks_are_named(vgg16_file, tmp_path, capsys):
    tensors = load_file(vgg16_file)
    kept = {k: v for k, v in tensors.items() if k.split(".")[1] in ("0", "2", "5", "7")}
    save_file(kept, tmp_path / "short.safetensors")
    assert len(VGG(str(tmp_path / "short.safetensors")).blocks) == 2
    assert "2 of the 5 blocks" in capsys.readouterr().out
    VGG(vgg16_file)
    assert capsys.readouterr().out == ""


def test_vgg16_has_five_blocks(vgg16_file):
    net = VGG(vgg16_file)
    assert [len(block) for block in net.blocks] == [2, 2, 3, 3, 1]
    shapes = [tuple(f.shape[1:]) for f in net(torch.rand(1, 3, 32, 32))]
    assert shapes == [(64, 32, 32), (6, 16, 16), (6, 8, 8), (6, 4, 4), (6, 2, 2)]
    assert not any(p.requires_grad for p in net.parameters())


def test_perceptual_gradient_points_towards_the_truth(vgg16_file):
    net = VGG(vgg16_file)
    truth, start = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32, requires_grad=True)
    before = losses.perceptual_loss(net(start), net(truth))
    before.backward()
    moved = start.detach() - 0.01 * start.grad / start.grad.abs().max()
    assert losses.perceptual_loss(net(moved), net(truth)) < before


def test_other_files_are_refused(tmp_path):
    save_file({"a.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no VGG"):
        VGG(str(tmp_path / "other.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="not a readable"):
        VGG(str(tmp_path / "broken.safetensors"))


def test_targets_move_towards_matched_colours():
    target, matched = torch.zeros(2, 3, 4, 4), torch.full((2, 2, 4, 4), 10.0)
    target[:, 0] = 70
    moved = losses.move_target(target, matched, torch.tensor([True, False]))
    assert torch.equal(moved[:, 0], target[:, 0])
    assert torch.allclose(moved[0, 1:], torch.full((2, 4, 4), 4.0))
    assert torch.equal(moved[1], target[1])


def test_enlarged_targets_have_no_loss_of_l():
    target, prediction = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    prediction[:, 0], prediction[:, 1] = 11, 22
    enlarged = torch.tensor([True, False])
    both, one = (losses.content_loss(prediction, target, enlarged=e) for e in (None, enlarged))
    assert both == pytest.approx((11 + 22) / 3 / 110)
    assert one == pytest.approx((11 / 2 + 22) / 3 / 110)
    assert losses.content_loss(prediction, target, scale=55) == pytest.approx(2 * both)


def test_elastic_moves_by_four_to_six_pixels_at_128():
    ramp = torch.linspace(0.5, 127.5, 128).expand(8, 1, 128, 128)
    distortion = draw_distortion(8, torch.Generator().manual_seed(0))._replace(flip=torch.ones(8))
    middle = (warp(ramp, distortion) - ramp)[..., 32:96, 32:96]
    assert 3 < middle.std() < 7
    mirrored = warp(ramp, distortion._replace(flip=-torch.ones(8), strength=torch.zeros(8)))
    assert torch.allclose(mirrored, ramp.flip(3), atol=1e-3)


def test_degraded_photos_stay_photos():
    photo = np.tile(np.arange(0, 256, 4, dtype=np.uint8)[:, None, None], (1, 64, 3))
    for seed in range(20):
        scan = degrade(photo, np.random.default_rng(seed))
        assert scan.shape == photo.shape
        assert scan.dtype == np.uint8
        assert np.corrcoef(scan.mean(2).ravel(), photo.mean(2).ravel())[0, 1] > 0.8
