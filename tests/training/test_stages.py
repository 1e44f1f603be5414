"""Stages: kinds of batches, unrelated references, what is trained; and the pictures of gallery and scans."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from training_run import losses, tiny_config

pytest.importorskip("accelerate")
pytest.importorskip("skimage")

from scsnet import SCSNet, SCSNetConfig, checkpoint
from training import gallery
from training.config import TrainConfig
from training.config.schedule import Plan
from training.config.stage import Stage
from training.data.dataset import Pairs
from training.data.photos import find_photos
from training.engine.loop import train as run
from training.evaluation.protocol import Colorizer, Protocol, scan, score
from training.losses import unrelated_reference_loss
from training.models.generator import Generator, build_network

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize(
    ("reference", "unrelated", "kinds"),
    [
        (2 / 3, 0.0, "a r r a r r a r r a r r"),
        (2 / 3, 0.5, "a r u a r u a r u a r u"),
        (2 / 3, 1 / 3, "a r r a u r a r u a r r"),
        (0.5, 0.5, "a r a u a r a u a r a u"),
        (0.25, 1.0, "a a a u a a a u a a a u"),
        (1.0, 0.5, "r u r u r u r u r u r u"),
        (0.0, 1.0, "a a a a a a a a a a a a"),
    ],
)
def test_kinds_of_batches_are_spread_evenly(reference, unrelated, kinds):
    stage = Stage(steps=12, reference_fraction=reference, unrelated_fraction=unrelated)
    plan = Plan(TrainConfig(stages=(stage,)), 10)
    places = [plan.place(step) for step in range(12)]
    assert [
        "a" if place.automatic else "u" if place.unrelated else "r" for place in places
    ] == kinds.split()
    assert not any(place.unrelated and place.mode.supervised for place in places)


@pytest.mark.parametrize("fraction", [0.1, 0.3, 2 / 3, 0.7])
def test_long_stages_keep_their_fraction(fraction):
    plan = Plan(TrainConfig(stages=(Stage(steps=30_000, reference_fraction=fraction),)), 10)
    referential = sum(not plan.place(step).automatic for step in range(30_000))
    assert referential == pytest.approx(30_000 * fraction, abs=1)


def test_unrelated_reference_loss_by_hand():
    """L 3 off; the target's mean ab (10, 0), the reference's (30, -20): a mean of (20, -10) costs nothing."""
    target, reference = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 4, 4)
    target[:, 1] = 10.0
    reference[:, 1], reference[:, 2] = 30.0, -20.0
    prediction = target.clone()
    prediction[:, 0] += 3
    prediction[0, 1] = torch.tensor([[0.0, 40.0], [25.0, 15.0]])
    prediction[0, 2] = torch.tensor([[-40.0, 20.0], [-20.0, 0.0]])
    loss = unrelated_reference_loss(prediction, target, reference)
    assert loss.item() == pytest.approx(3 / 3 / 110)
    prediction[:, 1] += 4
    prediction[:, 2] -= 2
    loss = unrelated_reference_loss(prediction, target, reference)
    assert loss.item() == pytest.approx((3 + 4 + 2) / 3 / 110)


def unrelated(photos, **changes):
    config = tiny_config(photos, "")
    stage = replace(
        config.stages[0], steps=20, reference_fraction=1.0, unrelated_fraction=1.0, **changes
    )
    entries = find_photos(config.data)
    config = replace(config, stages=(stage,))
    return Pairs(entries, Plan(config, len(entries))), config


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)])
def test_unrelated_references_do_not_depend_on_processes_and_parts(photos, processes, accumulate):
    """Also where a process has one picture at a time."""
    whole = unrelated(photos)[0][3, 0]
    assert torch.equal(whole.reference, whole.low.roll(1, 0))
    pairs, _ = unrelated(photos, accumulate=accumulate)
    pairs.processes = processes
    pieces = []
    for part in range(accumulate):
        for pairs.rank in range(processes):
            pieces.append(pairs[3, part])
    assert torch.equal(torch.cat([piece.reference for piece in pieces]), whole.reference)
    assert torch.equal(torch.cat([piece.low for piece in pieces]), whole.low)


def test_the_reference_reaches_the_result(photos):
    pairs, config = unrelated(photos)
    batch = pairs[1, 0]
    torch.manual_seed(0)
    generator = Generator(build_network(config), config).eval()
    mode = pairs.plan.place(1).mode
    with torch.no_grad():
        first = generator(batch, mode).planes
        own = generator(batch._replace(reference=batch.low), mode).planes
    assert all(not torch.allclose(a, b, atol=1e-6) for a, b in zip(first, own, strict=True))


def test_a_run_compares_the_mean_of_unrelated_references(photos, tmp_path):
    """Its loss is far below that of other batches: pixels of these photos differ much more than their means."""
    config = tiny_config(photos, tmp_path / "run")
    stage = Stage(
        steps=12, batch=8, size=16, trains="color", reference_fraction=1.0, unrelated_fraction=0.5,
        supervision=0.0, learning_rate=1e-6, warmup=0,
    )  # fmt: skip
    run(replace(config, stages=(stage,)))
    rows = losses(tmp_path / "run")
    kinds = [{k for k in row if k.endswith("content")} for _, row in sorted(rows.items())]
    assert kinds == [{"ref_content"}, {"unrelated_content"}] * 6
    own, other = (
        np.mean([row[name] for row in rows.values() if name in row])
        for name in ("ref_content", "unrelated_content")
    )
    assert other < 0.5 * own


def test_a_batch_of_one_has_no_other_photo():
    with pytest.raises(ValueError, match="at least 2 pictures"):
        Stage(batch=1, unrelated_fraction=0.5)


def test_a_trained_texture_encoder_is_used_and_stays_as_it_is(photos, tmp_path):
    """With trains="color"; an untrained psi_E, which is the identity, is skipped."""
    config = tiny_config(photos, tmp_path / "a")
    stage = replace(config.stages[0], steps=1, warmup=0)
    torch.manual_seed(0)
    net = SCSNet(SCSNetConfig(width=8, depth=1))
    first = {}
    for trained in (False, True):
        if trained:
            torch.nn.init.normal_(net.texture_encoder.blocks[0].conv2.weight)
        start, output = tmp_path / f"{trained}.safetensors", tmp_path / f"run{trained}"
        checkpoint.save(start, net)
        changes = {"stages": (stage,), "init": str(start), "output": str(output), "ema": 0.0}
        after = checkpoint.load(run(replace(config, **changes)), dtype=torch.float32)
        first[trained] = losses(output)[1]
        moved = {
            name.split(".")[0]
            for name, value in after.state_dict().items()
            if not torch.equal(value.half(), net.state_dict()[name].half())
        }
        assert moved == {"initial", "color_branch", "head"}
    assert first[True] != first[False]

    stages = tuple(replace(stage, trains=trains) for trains in ("color", "everything", "color"))
    plan = Plan(replace(config, stages=stages), 10)
    assert [plan.place(step).mode.texture for step in range(3)] == [False, True, True]


def test_scans_are_the_input_and_never_the_target(photos):
    inputs = []

    def colorize(low, reference, mode):
        inputs.append(low)
        return np.zeros((32, 32, 3), np.uint8)

    entries = find_photos([str(photos)])[:3]
    kept = []
    for degraded in (False, True):
        protocol = Protocol(size=32, magnification=2, modes=("auto",), degraded=degraded)
        score(colorize, entries, protocol, lambda name, made: kept.append(made["truth"]))
    assert all(not torch.equal(a, b) for a, b in zip(inputs[:3], inputs[3:], strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(kept[:3], kept[3:], strict=True))
    assert torch.equal(scan(inputs[0], 1), scan(inputs[0], 1))


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
