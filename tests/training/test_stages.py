"""Stages: what a step computes and trains, with and without a prior; degraded inputs and the gallery."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_prior import TINY
from training_run import losses, tiny_config

from scsnet import SCSNet, SCSNetConfig, checkpoint, prior
from scsnet.color import normalize_lab, rgb_to_lab
from training import gallery
from training.config import Stage, TrainConfig
from training.config.schedule import Schedule
from training.data.dataset import TrainingPairs
from training.data.photos import find_photos
from training.data.references import warp
from training.engine.loop import train
from training.evaluation.protocol import Colorizer, Protocol, score, to_tensor
from training.models.generator import TrainingModel, build_network, match_colors

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def run(config, **changes):
    """Train the first stage without a moving average; return the weights in float16."""
    config = replace(config, stages=(replace(config.stages[0], warmup=0, **changes),), ema=0.0)
    return checkpoint.load(train(config), dtype=torch.float16).state_dict()


def test_stage_trains_its_part_only(photos, tmp_path, weights):
    before = checkpoint.load(weights, dtype=torch.float16).state_dict()
    for trains, parts in (
        ("color", {"color_branch"}),
        ("all_but_texture", {"color_branch", "initial", "head"}),
        ("everything", {"color_branch", "initial", "head", "texture_encoder"}),
        ("details", {"head", "texture_encoder"}),
    ):
        config = tiny_config(photos, tmp_path / trains, init=str(weights))
        after = run(config, steps=2, trains=trains, reference_fraction=1.0, learning_rate=0.05)
        moved = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
        assert moved == parts


def test_texture_is_evaluated_where_it_has_been_trained():
    """A stage that does not train psi_E evaluates it, or skips it while it is the identity."""
    stages = [Stage(steps=1, trains=t) for t in ("all_but_texture", "everything", "color")]
    for init, expected in (("", [False, True, True]), ("bundled", [True] * 3)):
        schedule = Schedule(TrainConfig(stages=tuple(stages), init=init), 10)
        assert [schedule.at(step).mode.texture for step in range(3)] == expected


@pytest.fixture
def prior_file(tmp_path, monkeypatch):
    monkeypatch.setattr(prior, "EFFICIENTNET_LITE2", TINY)
    torch.manual_seed(5)
    weights = prior.SemanticPrior(TINY).state_dict()
    weights["palette"].normal_(0, 30)
    save_file(weights, tmp_path / "prior.safetensors")
    return tmp_path / "prior.safetensors"


def test_prior_is_added_and_stays_as_it_is(photos, tmp_path, prior_file):
    config = tiny_config(photos, tmp_path / "a", prior=str(prior_file))
    after = run(config, steps=3, trains="color", learning_rate=0.01)
    assert str(tmp_path) not in str(checkpoint.read_info(tmp_path / "a/weights.safetensors").card)
    guidance, given = "color_branch.guidance.", load_file(prior_file)
    for name, value in given.items():
        assert torch.equal(after[f"{guidance}prior.{name}"], value.half()), name
    assert after[f"{guidance}source.weight"].abs().max() > 0
    assert after[f"{guidance}reference.weight"].abs().max() > 0
    other = tmp_path / "other.safetensors"
    config = replace(config, init=str(tmp_path / "a/weights.safetensors"), prior=str(other))
    save_file({name: value + 1 for name, value in given.items()}, other)
    state = build_network(config).state_dict()
    assert torch.equal(state[f"{guidance}source.weight"].half(), after[f"{guidance}source.weight"])
    for name, value in given.items():
        assert torch.equal(state[f"{guidance}prior.{name}"], value + 1), name
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match="holds no semantic prior"):
        build_network(config)


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
    """Compared with the formula, written cell by cell."""
    torch.manual_seed(0)
    config = SCSNetConfig(width=8, depth=1, prior="efficientnet_lite2")
    guidance = SCSNet(config).color_branch.guidance
    luminance, other = torch.rand(2, 2, 1, 64, 64) * 2 - 1
    ab = torch.rand(2, 2, 64, 64) * 60 - 30
    matched = match_colors(guidance, luminance, other, ab)
    z, y = (guidance.describe(planes)[:, :448].flatten(2) for planes in (luminance, other))
    for b in range(2):
        rows = [torch.cosine_similarity(z[b, :, n, None], y[b], dim=0) for n in range(256)]
        cosine = torch.stack(rows)
        weights = torch.softmax(4 * (cosine - cosine.mean()) / cosine.std(), dim=1)
        cells = ab[b].unflatten(1, (16, 4)).unflatten(3, (16, 4)).mean((2, 4)).flatten(1)
        expected = (weights @ cells.T).T.view(2, 16, 16)
        assert torch.allclose(matched[b], expected, atol=1e-3)


def test_other_photos_as_references_need_a_prior(photos, tmp_path, prior_file):
    config = tiny_config(photos, tmp_path / "a", precision="bf16")
    stages = tuple(replace(stage, others=0.5, masks=0.5) for stage in config.stages)
    with pytest.raises(ValueError, match="others needs a network with a prior"):
        train(replace(config, stages=stages))
    train(replace(config, stages=stages, prior=str(prior_file)))
    assert len(losses(tmp_path / "a")) == 8


def test_evaluation_degrades_the_input_and_not_the_truth(photos):
    seen, kept = [], []

    def colorize(low, reference, mode):
        seen.append(low)
        return np.zeros((32, 32, 3), np.uint8)

    entries = find_photos([photos])[:1]
    for degraded in (False, True):
        protocol = Protocol(size=32, magnification=2, modes=("auto",), degraded=degraded)
        score(colorize, entries, protocol, lambda _, made: kept.append(made["truth"]))
    assert not torch.equal(*seen)
    assert np.array_equal(*kept)


def test_gallery_shows_every_photo_best_first(photos, tmp_path, tiny_net):
    """The automatic results are those that are evaluated."""
    colorize = Colorizer(tiny_net, Protocol(size=64, magnification=2))
    options = gallery.Options(
        data=(str(photos),), output=str(tmp_path), limit=4, input=32, size=64,
        magnifications=(1.5, 3.0), marked=1,
    )  # fmt: skip
    found = gallery.gallery(tiny_net, options)
    assert [p.psnr for p in found] == sorted((p.psnr for p in found), reverse=True)
    text = (tmp_path / "index.html").read_text()
    assert text.count("<section>") == 4
    assert text.count("best 1:") == text.count("worst 1:") == 1
    for photo in found:
        assert photo.details["x1.5"].shape == photo.details["x1.5 bicubic"].shape == (48, 48, 3)
        automatic = photo.pictures["automatic"].astype(int)
        error = (automatic - photo.pictures["truth"]) / 255
        assert photo.psnr == pytest.approx(-10 * np.log10(np.square(error).mean()), abs=1e-3)
        made = colorize(to_tensor(photo.pictures["input"]), None, "auto")
        assert np.abs(made - automatic).max() <= 1
    named = set(re.findall('src="(.+?)"', text))
    assert len(named) == 4 * (8 + 4)
    assert all((tmp_path / name).is_file() for name in named)
