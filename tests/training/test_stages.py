"""What is for automatic colours: classes of colour, more of such batches, the colour branch alone; and what is looked at."""

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
from training.data.photos import find_photos
from training.engine import loop
from training.engine.loop import train as run
from training.evaluation.protocol import Colorizer, Protocol, scan, score
from training.models.auxiliary_heads import Classification, start_head

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_every_nth_batch_has_references():
    plan = Plan(TrainConfig(stages=(Stage(steps=8, reference_every=4),)), 10)
    automatic = [plan.place(step).automatic for step in range(8)]
    assert automatic == [False, True, True, True] * 2


def test_classes_by_hand():
    ab = torch.tensor([[0.0, 0.0], [4.9, -5.1], [-110.0, 100.0], [500.0, -500.0]])
    classes = Classification(4).classes(ab.T.reshape(1, 2, 1, 4))
    by_hand = [11 * 22 + 11, 11 * 22 + 10, 0 * 22 + 21, 21 * 22 + 0]
    assert classes.flatten().tolist() == by_hand


def test_the_loss_of_classes_is_the_entropy_of_a_guess():
    heads = Classification(4)
    for parameter in heads.parameters():
        torch.nn.init.zeros_(parameter)
    features = {name: torch.randn(2, 4, 3, 3) for name in ("source", "attended")}
    loss = heads.loss(features, torch.randn(2, 2, 12, 12) * 30)
    assert loss.item() == pytest.approx(np.log(22 * 22), rel=1e-5)


def test_classes_are_learnt(photos, tmp_path):
    config = tiny_config(photos, tmp_path / "run")
    stage = Stage(
        steps=40, batch=4, size=16, texture=False, automatic_every=1, supervision=0.0,
        content=0.0, classification=1.0, learning_rate=2e-3, warmup=0,
    )  # fmt: skip
    run(replace(config, stages=(stage,)))
    rows = list(losses(tmp_path / "run").values())
    start, end = (np.mean([r["classification"] for r in part]) for part in (rows[:4], rows[-4:]))
    assert end < 0.95 * start


def test_the_head_of_coarse_stages_starts_with_what_is_made(tiny_net):
    lab = torch.rand(12, 3, 32, 32) * 2 - 1
    head = torch.nn.Conv2d(4 * tiny_net.config.width, 2, 1)
    start_head(tiny_net, head, lab)
    luminance = lab[:, :1]
    made = tiny_net.decode(tiny_net.encode(luminance, None, working_size=32), (32, 32))[:, 1:]
    wanted = torch.nn.functional.avg_pool2d(made, 4)
    attended = tiny_net.color_branch.extractor(
        tiny_net.color_branch.source_encoder(tiny_net.initial(luminance))
    )
    error = (head(attended) - wanted).square().mean((0, 2, 3))
    assert (error < 0.5 * wanted.var((0, 2, 3))).all()


def test_stretched_colours_are_asked_of_automatic_pictures(photos, tmp_path, monkeypatch):
    asked = {}

    def seen(lab, truth, **_):
        asked.setdefault(stretch, []).append(truth)
        return (lab - truth).abs().mean()

    monkeypatch.setattr("training.engine.step.losses.content_loss", seen)
    config = tiny_config(photos, tmp_path / "run")
    for number, stretch in enumerate(((1.0, 1.0), (2.0, 0.5))):
        stage = replace(config.stages[0], steps=2, automatic_every=2, stretch=stretch)
        run(replace(config, stages=(stage,), output=str(tmp_path / str(number))))
    plain, stretched = asked.values()
    factors = torch.tensor([1.0, 2.0, 0.5]).view(1, 3, 1, 1)
    assert torch.equal(stretched[0], plain[0] * factors)  # the first batch is automatic
    assert torch.equal(stretched[1], plain[1])
    with pytest.raises(ValueError, match=r"stretch must be two numbers.*got \(0\.0, 1\.0\)"):
        Stage(stretch=(0.0, 1.0))


def test_a_stage_can_start_with_that_head(photos, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(loop, "start_head", lambda net, head, lab: started.append(lab.shape))
    stage = Stage(
        steps=2, batch=4, size=16, coarse=True, head_anew=True, automatic_every=1, supervision=0.0,
        warmup=0,
    )  # fmt: skip
    config = tiny_config(photos, tmp_path / "run")
    run(replace(config, stages=(replace(stage, head_anew=False), stage)))
    assert started == [(240, 3, 16, 16)]


@pytest.mark.parametrize(
    ("what", "parts"), [("color", {"color_branch"}), ("texture", {"texture_encoder", "head"})]
)
def test_only_a_part_learns(photos, tmp_path, what, parts):
    config = tiny_config(photos, tmp_path / "a")
    stage = replace(config.stages[0], steps=2, learns=what, texture=True, warmup=0)
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


def test_what_automatic_pictures_never_meet_learns_alone(photos, tmp_path):
    config = tiny_config(photos, tmp_path / "a")
    stage = replace(config.stages[0], steps=2, learns="reference", automatic_every=0, warmup=0)
    torch.manual_seed(0)
    before = SCSNet(SCSNetConfig(width=8, depth=1)).eval()
    checkpoint.save(tmp_path / "start.safetensors", before, dtype=torch.float16)
    weights = run(
        replace(config, stages=(stage,), init=str(tmp_path / "start.safetensors"), ema=0.0)
    )
    start, after = (
        checkpoint.load(file, dtype=torch.float32)
        for file in (tmp_path / "start.safetensors", weights)
    )
    luminance, reference = torch.rand(1, 1, 16, 16), [torch.rand(1, 3, 16, 16)]
    automatic, referential = [], []
    with torch.no_grad():
        for net in (start, after):
            automatic.append(net.encode(luminance).color)
            memory = net.encode_reference(reference)
            referential.append(net.encode(luminance, memory).color)
    assert torch.equal(*automatic)
    assert not torch.allclose(*referential)
    for every in ({"automatic_every": 3}, {"reference_every": 2}):
        with pytest.raises(ValueError, match="needs references in every batch"):
            Stage(learns="reference", **every)
    assert Stage(learns="reference", reference_every=1).learns == "reference"


def test_colours_learn_beside_the_texture_that_will_be_there(photos, tmp_path):
    """A psi_E that knows something is used where it does not learn; one that knows nothing costs nothing."""
    config = tiny_config(photos, tmp_path / "a")
    stage = replace(config.stages[0], steps=1, texture=False, warmup=0)
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

    stages = tuple(replace(stage, texture=texture) for texture in (False, True, False))
    plan = Plan(replace(config, stages=stages), 10)
    assert [plan.place(step).mode.texture for step in range(3)] == [False, True, True]
    plan = Plan(replace(config, stages=stages, init="bundled"), 10)
    assert plan.place(0).mode.texture


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
