"""Stages: what a batch has, what is trained; evaluation on degraded inputs and the gallery."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_prior import TINY
from training_run import losses, tiny_config

pytest.importorskip("accelerate")
pytest.importorskip("skimage")

from scsnet import SCSNet, SCSNetConfig, checkpoint, prior
from scsnet.color import normalize_lab, rgb_to_lab
from training import gallery
from training.config import TrainConfig
from training.config.schedule import Schedule
from training.config.stage import Stage
from training.data.dataset import TrainingPairs
from training.data.photos import find_photos
from training.data.references import warp
from training.engine.loop import train as run
from training.evaluation.protocol import Colorizer, Protocol, scan, score
from training.models.generator import TrainingModel, build_network
from training.models.matching import match_colors

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_referential_batches_are_spread_evenly():
    for fraction in (0.0, 0.25, 0.5, 0.67, 1.0):
        stage = Stage(steps=200, reference_fraction=fraction)
        schedule = Schedule(TrainConfig(stages=(stage,)), 10)
        referential = np.array([not schedule.at(step).automatic for step in range(200)])
        assert referential.sum() == round(200 * fraction)
        for start in range(0, 200, 20):
            assert abs(referential[start : start + 20].sum() - 20 * fraction) <= 1


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("color", {"color_branch"}),
        ("all_but_texture", {"color_branch", "initial", "head"}),
        ("everything", {"color_branch", "initial", "head", "texture_encoder"}),
        ("details", {"head", "texture_encoder"}),
    ],
)
def test_only_a_part_learns(photos, tmp_path, what, parts):
    config = tiny_config(photos, tmp_path / "a")
    stage = replace(
        config.stages[0], steps=2, trains=what, reference_fraction=1.0, learning_rate=0.05, warmup=0
    )
    torch.manual_seed(0)
    before = SCSNet(SCSNetConfig(width=8, depth=1))
    checkpoint.save(tmp_path / "start.safetensors", before)
    weights = run(
        replace(config, stages=(stage,), init=str(tmp_path / "start.safetensors"), ema=0.0)
    )
    start = checkpoint.load(tmp_path / "start.safetensors", dtype=torch.float32).state_dict()
    after = checkpoint.load(weights, dtype=torch.float32).state_dict()
    moved = {
        name for name, value in after.items() if not torch.equal(value.half(), start[name].half())
    }
    assert {name.split(".")[0] for name in moved} == parts


def test_colours_learn_beside_the_texture_that_will_be_there(photos, tmp_path):
    """psi_E is evaluated without updates if it was trained, and skipped as the identity if not."""
    config = tiny_config(photos, tmp_path / "a")
    stage = replace(config.stages[0], steps=1, warmup=0)
    torch.manual_seed(0)
    net = SCSNet(SCSNetConfig(width=8, depth=1))
    first = {}
    for knows in (False, True):
        if knows:
            torch.nn.init.normal_(net.texture_encoder.blocks[0].conv2.weight)
        start = tmp_path / f"{knows}.safetensors"
        checkpoint.save(start, net)
        output = tmp_path / f"run{knows}"
        weights = run(
            replace(config, stages=(stage,), init=str(start), output=str(output), ema=0.0)
        )
        first[knows] = losses(output)[1]
        psi = checkpoint.load(weights, dtype=torch.float32).texture_encoder.state_dict()
        for name, value in net.texture_encoder.state_dict().items():
            assert torch.equal(psi[name].half(), value.half()), name
    assert first[True] != first[False]

    trains = ("all_but_texture", "everything", "all_but_texture")
    stages = tuple(replace(stage, trains=name) for name in trains)
    schedule = Schedule(replace(config, stages=stages), 10)
    assert [schedule.at(step).mode.texture for step in range(3)] == [False, True, True]
    schedule = Schedule(replace(config, stages=stages, init="bundled"), 10)
    assert schedule.at(0).mode.texture


@pytest.fixture
def prior_file(tmp_path, monkeypatch):
    monkeypatch.setattr(prior, "EFFICIENTNET_LITE2", TINY)
    torch.manual_seed(5)
    weights = prior.SemanticPrior(TINY).state_dict()
    weights["palette"].normal_(0, 30)
    save_file(weights, tmp_path / "prior.safetensors")
    return tmp_path / "prior.safetensors"


def test_a_prior_is_added_and_stays_as_it_is(photos, tmp_path, prior_file):
    config = tiny_config(photos, tmp_path / "a", prior=str(prior_file))
    stage = replace(config.stages[0], steps=3, trains="color", warmup=0, learning_rate=0.01)
    weights = run(replace(config, stages=(stage,), ema=0.0))
    net = checkpoint.load(weights, dtype=torch.float32)
    guidance = net.color_branch.guidance
    for name, value in load_file(prior_file).items():
        assert torch.equal(guidance.prior.state_dict()[name].half(), value.half()), name
    assert guidance.source.weight.abs().max() > 0
    assert guidance.reference.weight.abs().max() > 0
    values = {name: value + 1 for name, value in load_file(prior_file).items()}
    save_file(values, tmp_path / "second.safetensors")
    second = replace(config, init=str(weights), prior=str(tmp_path / "second.safetensors"))
    replaced = build_network(second).color_branch.guidance
    assert torch.equal(replaced.source.weight, guidance.source.weight)
    for name, value in values.items():
        assert torch.equal(replaced.prior.state_dict()[name], value), name
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no semantic prior"):
        build_network(replace(config, prior=str(tmp_path / "other.safetensors")))


def test_training_computes_what_users_get(photos, tmp_path, prior_file):
    """The forward pass of training with masked references equals `encode` and `decode`."""
    config = tiny_config(photos, "", prior=str(prior_file))
    stage = replace(config.stages[1], size=32, magnification=(1.0, 1.0), masks=1.0, degrade=0.0)
    config = replace(config, stages=(stage,))
    entries = find_photos([photos])
    schedule = Schedule(config, len(entries))
    step = next(s for s in range(9) if not schedule.at(s).automatic)
    batch = TrainingPairs(entries, schedule)[step, 0]
    torch.manual_seed(0)
    net = build_network(config)
    for projection in (net.color_branch.guidance.source, net.color_branch.guidance.reference):
        torch.nn.init.normal_(projection.weight, std=0.02)
    mode = schedule.at(step).mode
    assert mode.masked
    with torch.no_grad():
        made = TrainingModel(net, config)(batch, mode._replace(texture=True, supervised=False))
        luminance, clean = (
            normalize_lab(rgb_to_lab(rgb), net.config) for rgb in (batch.input, batch.low)
        )
        planes = warp(clean, batch.distortion)
        planes[:, 1:] *= batch.mask  # strokes on a gray photo
        reference = net.encode_reference([planes], masks=[batch.mask])
        features = net.encode(luminance[:, :1], reference)
        expected = net.decode(features, batch.size, batch.window)
    assert torch.allclose(made.planes, expected, atol=1e-4)


def test_colours_are_matched_by_what_the_prior_sees(prior_file):
    """A reference that is the photo itself with half the chroma yields these colours, compared with the formula."""
    config = SCSNetConfig(width=8, depth=1, prior="efficientnet_lite2")
    torch.manual_seed(0)
    guidance = SCSNet(config).color_branch.guidance
    luminance, other = torch.rand(2, 2, 1, 64, 64) * 2 - 1
    ab = torch.rand(2, 2, 64, 64) * 60 - 30
    matched = match_colors(guidance, luminance, other, ab)
    z, y = (guidance.describe(planes)[:, :448].flatten(2) for planes in (luminance, other))
    for b in range(2):
        cosine = torch.stack(
            [torch.cosine_similarity(z[b, :, n, None], y[b], dim=0) for n in range(256)]
        )
        weights = torch.softmax(4 * (cosine - cosine.mean()) / cosine.std(), dim=1)
        cells = ab[b].unflatten(1, (16, 4)).unflatten(3, (16, 4)).mean((2, 4)).flatten(1)
        expected = (weights @ cells.T).T.view(2, 16, 16)
        assert torch.allclose(matched[b], expected, atol=1e-3)


def test_others_need_a_prior(photos, tmp_path):
    config = tiny_config(photos, tmp_path / "a")
    stage = replace(config.stages[0], others=0.5)
    with pytest.raises(ValueError, match="others needs a network with a prior"):
        run(replace(config, stages=(stage,)))


def test_a_stage_with_other_photos_runs(photos, tmp_path, prior_file):
    config = tiny_config(photos, tmp_path / "a", prior=str(prior_file))
    stages = tuple(replace(stage, others=0.5, masks=0.5) for stage in config.stages)
    run(replace(config, stages=stages, precision="bf16"))
    assert len(losses(tmp_path / "a")) == 8


def test_scans_are_the_input_and_never_the_truth(photos):
    seen = []

    def colorize(low, reference, mode):
        seen.append(low)
        return np.zeros((32, 32, 3), np.uint8)

    entries = find_photos([str(photos)])[:3]
    kept = []
    for degraded in (False, True):
        protocol = Protocol(size=32, magnification=2, modes=("auto",), degraded=degraded)
        score(colorize, entries, protocol, lambda name, made: kept.append(made["truth"]))
    assert all(not torch.equal(a, b) for a, b in zip(seen[:3], seen[3:], strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(kept[:3], kept[3:], strict=True))
    assert torch.equal(scan(seen[0], 1), scan(seen[0], 1))


def test_the_gallery_shows_every_photo_best_first(photos, tmp_path):
    net = SCSNet(SCSNetConfig(width=8, depth=1)).eval()
    options = gallery.Options(
        data=(str(photos),), output=str(tmp_path / "page"), limit=4, input=32, size=64,
        magnifications=(1.5, 3.0), marked=1,
    )  # fmt: skip
    found = gallery.gallery(net, options)
    assert [p.psnr for p in found] == sorted((p.psnr for p in found), reverse=True)
    text = (tmp_path / "page" / "index.html").read_text()
    assert text.count("<section>") == 4
    assert text.count("best 1:") == text.count("worst 1:") == 1
    for photo in found:
        assert photo.details["x1.5"].shape == photo.details["x1.5 bicubic"].shape == (48, 48, 3)
        error = np.square(photo.pictures["automatic"] / 255 - photo.pictures["truth"] / 255).mean()
        assert photo.psnr == pytest.approx(-10 * np.log10(error), abs=1e-3)
    named = {line.split('"')[0] for line in text.split('src="')[1:]}
    for name in named:
        with Image.open(tmp_path / "page" / name) as picture:
            assert picture.size[0] > 0
    assert len(named) == 4 * (8 + 4)


def test_the_gallery_is_what_the_program_makes(photos):
    """The automatic picture is that of `evaluate`, from the same gray input."""
    torch.manual_seed(0)
    net = SCSNet(SCSNetConfig(width=8, depth=1)).eval()
    with Image.open(photos / "00.png") as photo:
        square = photo.resize((64, 64))
    shown = gallery.show(net, "a", square, (), gallery.Options(input=32, size=64))
    low = torch.from_numpy(shown.pictures["input"]).permute(2, 0, 1)[None].float() / 255
    made = Colorizer(net, Protocol(size=64, magnification=2))(low, None, "auto")
    assert np.abs(made.astype(int) - shown.pictures["automatic"].astype(int)).max() <= 1
