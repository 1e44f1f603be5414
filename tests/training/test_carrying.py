"""What references start as: phi_E^r that carries colours, PVCAttn that brings them to where the picture looks alike."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from test_start import coarse_and_fine
from training_run import StopError, losses, stop_at, tiny_config

pytest.importorskip("accelerate")

from scsnet import SCSNet, SCSNetConfig, checkpoint
from scsnet.color import normalize_lab, rgb_to_lab
from training import start
from training.carrying import brought, colors, components, signed, start_references
from training.config.stage import Stage
from training.engine.loop import train as run


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


def test_what_tells_places_apart_is_found():
    torch.manual_seed(0)
    source = torch.randn(8, 5, 12, 12) * torch.tensor([0.2, 9, 0.1, 9, 1]).view(1, 5, 1, 1) + 3
    copied = source + torch.tensor([0, 30.0, 0, 30, 0]).view(1, 5, 1, 1) * torch.randn_like(source)
    weights, offsets = components(source, copied, 3)
    steady, changing = weights[:, [0, 2, 4]], weights[:, [1, 3]]
    assert torch.linalg.svdvals(steady).min() > 100 * changing.norm()  # strong or weak
    made = torch.einsum("dc,nchw->ndhw", weights, copied) + offsets.view(1, 3, 1, 1)
    assert made.mean((0, 2, 3)).abs().max() < 1e-3 * made.std()


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


def anew_config(photos, output):
    """phi_E^s changes, then its references start anew while phi_D learns."""
    seen = {"steps": 2, "batch": 4, "size": 32, "supervision": 0.0, "warmup": 0}
    stages = (
        Stage(**seen, automatic_every=1, learns="color", learning_rate=1e-3),
        Stage(**seen, automatic_every=2, learns="decoder", references_anew=True),
    )
    return tiny_config(
        photos,
        output,
        stages=stages,
        network=SCSNetConfig(width=16, depth=1),
        ema=0.9,
        save_every=1,
    )


def test_references_start_anew_within_a_run(photos, lab, tmp_path):
    config = anew_config(photos, tmp_path / "whole")
    first = replace(config, output=str(tmp_path / "first"), stages=config.stages[:1])
    net, before = (checkpoint.load(run(c), dtype=torch.float32) for c in (config, first))
    with torch.no_grad():
        source = net.color_branch.source_encoder(net.initial(lab[:, :1]))
    silent = (source.abs().amax((0, 2, 3)) == 0).nonzero().flatten().tolist()
    true = F.avg_pool2d(lab[:, 1:], 4)
    assert len(silent) == 4
    made = [brought(net, lab, lab, list(order)) for order in permutations(silent)]
    assert min((ab - true).abs().mean() / true.abs().mean() for ab in made) < 0.4
    after, before = net.state_dict(), before.state_dict()
    moved = {n for n in after if not torch.equal(after[n], before[n])}
    parts = ("reference_initial", "reference_encoder", "cross_attention", "decoder")
    rest = {n for n in moved if not n.startswith(tuple(f"color_branch.{p}" for p in parts))}
    convs = [f"extractor.convs.{i}.conv" for i in range(3)] + ["extractor.attention.post"]
    emptied = {f"color_branch.{name}" for name in ("source_encoder.blocks.7.conv", *convs)}
    assert {name.rpartition(".")[0] for name in rest} <= emptied
    for name in rest:  # four channels of each
        changed = after[name] != before[name]
        assert changed.reshape(len(changed), -1).any(1).sum() <= 4


def test_a_run_killed_there_goes_on_as_if_it_had_not_been(photos, tmp_path):
    config = anew_config(photos, tmp_path / "killed")
    with pytest.raises(StopError):
        run(config, on_step=stop_at(2))  # the references have not started anew yet
    killed = run(config, resume=True)
    whole = run(replace(config, output=str(tmp_path / "whole")))
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    ours, theirs = (checkpoint.load(w, dtype=torch.float32).state_dict() for w in (killed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_of_another_network_is_refused_before_its_first_step(photos, tmp_path):
    config = anew_config(photos, tmp_path / "run")
    config = replace(config, network=SCSNetConfig(width=8, depth=1, attention="basic"))
    with pytest.raises(ValueError, match="pyramid_valve"):
        run(config)
    assert not list(tmp_path.glob("run/**/*.pt"))


@pytest.mark.parametrize(
    "changes", [{"norm": "instance"}, {"attention": "basic"}, {"attention": "none"}]
)
def test_other_networks_are_refused(changes, lab):
    with pytest.raises(ValueError, match=next(iter(changes))):
        start_references(SCSNet(SCSNetConfig(width=8, depth=1, **changes)), lab)
