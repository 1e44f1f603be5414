"""What references start as: phi_E^r that carries colours, PVCAttn that brings them to where the picture looks alike."""

import pytest
import torch
import torch.nn.functional as F
from test_training_start import coarse_and_fine

from scsnet import SCSNet, SCSNetConfig, checkpoint
from scsnet.color import normalize_lab, rgb_to_lab
from training import start
from training.carrying import brought, colors, signed, start_references


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Colourful noise of every size."""
    return coarse_and_fine(tmp_path_factory.mktemp("carrying") / "photos")


@pytest.fixture(scope="module")
def lab(photos):
    """Normalised LAB of 24 of them."""
    options = start.Options(data=(str(photos),), features="x", output="x.safetensors", photos=24)
    return normalize_lab(rgb_to_lab(start.looked_at(options)), SCSNetConfig())


@pytest.fixture(scope="module")
def ready(lab):
    """An untrained network whose references have started, and the channels that carry."""
    torch.manual_seed(0)
    net = SCSNet(SCSNetConfig(width=16, depth=1))
    return net, start_references(net, lab)


def test_colors_survive_the_activation_and_a_mean():
    ab = torch.randn(3, 2, 4, 4)
    carried = F.leaky_relu(signed(ab), 0.2)
    assert torch.allclose(colors(carried), ab, atol=1e-6)
    assert torch.allclose(colors(carried.mean((2, 3), keepdim=True)), ab.mean((2, 3), keepdim=True))


@torch.no_grad()
def test_the_reference_encoder_carries_ab(ready, lab):
    net, carried = ready
    made = colors(net.color_branch.encode_reference(lab)[:, carried])
    assert torch.allclose(made, F.avg_pool2d(lab[:, 1:], 4), atol=0.01)


@torch.no_grad()
def test_it_sees_what_the_source_encoder_sees(ready, lab):
    net, carried = ready
    others = [c for c in range(64) if c not in carried]
    source = net.color_branch.source_encoder(net.initial(lab[:, :1]))
    reference = net.color_branch.encode_reference(lab)
    assert not source[:, carried].any()
    near = F.cosine_similarity(source[:, others], reference[:, others], dim=1).mean()
    assert near > 0.9
    joined = net.color_branch.aggregate(
        source, net.color_branch.cross_attention.remember([reference])
    )
    assert torch.allclose(joined[:, others], source[:, others], atol=1e-5)
    made = net.color_branch.extractor(joined)
    assert torch.allclose(made[:, carried], joined[:, carried], atol=1e-5)
    assert not torch.allclose(made[:, others], joined[:, others], atol=1e-2)


def test_colors_are_brought_to_where_the_picture_looks_alike(ready, lab):
    net, carried = ready
    true = F.avg_pool2d(lab[:, 1:], 4)
    for references, low, high in (
        (lab, 0.0, 0.35),  # the photo itself
        (lab.roll(16, 3), 0.0, 0.45),  # moved: as above, but for what is new along the borders
        (lab.roll(1, 0), 0.9, 3.0),  # another photo
    ):
        error = (brought(net, lab, references, carried) - true).abs().mean() / true.abs().mean()
        assert low <= error < high
    gray = torch.cat([lab[:, :1], torch.zeros_like(lab[:, 1:])], 1)
    assert brought(net, lab, gray, carried).abs().max() < 0.02


def test_of_references_alone_all_else_stays(ready, photos, tmp_path, capsys):
    net, _ = ready
    before = SCSNet(net.config)
    checkpoint.save(tmp_path / "before.safetensors", before)
    words = f"--part references --init {tmp_path / 'before.safetensors'} --photos 24 --size 48"
    start.main(f"--data {photos} {words} --output {tmp_path / 'after.safetensors'}".split())
    assert "of gray's" in capsys.readouterr().out
    after = checkpoint.load(tmp_path / "after.safetensors", dtype=torch.float32)
    kept = checkpoint.load(tmp_path / "before.safetensors", dtype=torch.float32).state_dict()
    moved = {n for n, t in after.state_dict().items() if not torch.equal(t, kept[n])}
    fitted = ("reference_initial", "reference_encoder", "cross_attention")
    rest = {n for n in moved if not n.startswith(tuple(f"color_branch.{f}" for f in fitted))}
    extractor = [f"extractor.convs.{i}.conv" for i in range(3)] + ["extractor.attention.post"]
    emptied = {f"color_branch.{name}" for name in ("source_encoder.blocks.7.conv", *extractor)}
    assert {name.rpartition(".")[0] for name in rest} == emptied
    for name in rest:  # four channels of each
        changed = after.state_dict()[name] != kept[name]
        assert changed.reshape(len(changed), -1).any(1).sum() <= 4
    card = checkpoint.read_info(tmp_path / "after.safetensors").card
    assert 0 < card["start"]["carried_error"] < 1


@pytest.mark.parametrize(
    "changes", [{"norm": "instance"}, {"attention": "basic"}, {"attention": "none"}]
)
def test_other_networks_are_refused(changes, lab):
    with pytest.raises(ValueError, match=next(iter(changes))):
        start_references(SCSNet(SCSNetConfig(width=8, depth=1, **changes)), lab)
