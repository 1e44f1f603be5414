"""The teacher of automatic colours: it learns what goes with what, and phi follows it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from training_run import losses, make_mobilenet, tiny_config

pytest.importorskip("accelerate")
pytest.importorskip("skimage")

from scsnet import checkpoint
from scsnet.color import gray, rgb_to_lab
from training import teacher
from training.config import TrainConfig
from training.data import Pairs, planes
from training.loop import train as run
from training.photos import find
from training.plan import Plan
from training.stage import Stage
from training.teaching import Head, Teacher, cells, difference

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
GREEN, RED = (120, 230, 120), (120, 20, 20)


@pytest.fixture(scope="module")
def meadows(tmp_path_factory):
    """Bright photos are green, dark ones red; soft noise on both."""
    folder = tmp_path_factory.mktemp("meadows")
    rng = np.random.default_rng(0)
    for i in range(16):
        noise = rng.normal(0, 6, (64, 64, 1))
        pixels = np.clip(np.array(GREEN if i % 2 else RED) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    (folder / "broken.png").write_bytes(b"no photo")
    return folder


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Weights of a small MobileNet."""
    return make_mobilenet(tmp_path_factory.mktemp("features") / "mobilenet.npz")


@pytest.fixture(scope="module")
def taught(meadows, features, tmp_path_factory):
    """A teacher's file."""
    output = tmp_path_factory.mktemp("taught") / "teacher.safetensors"
    teacher.main(
        f"--data {meadows} --features {features} --output {output} "
        "--views 1 --epochs 20 --batch 8 --learning-rate 3e-3".split()
    )
    return str(output)


def test_a_teacher_knows_what_goes_with_what(taught, features):
    made = Teacher(features, taught)
    assert not any(p.requires_grad for p in made.parameters())
    for color, sign in ((GREEN, -1), (RED, 1)):
        rgb = planes([np.full((224, 224, 3), color, np.uint8)])
        ab = made(rgb)
        assert ab.shape == (1, 2, 14, 14)
        assert (sign * ab[:, 0].mean()) > 10
        assert torch.allclose(made(gray(rgb)), ab, atol=1.0)  # it sees L alone


def test_what_it_looks_at_has_no_colour():
    rgb = torch.rand(2, 3, 8, 8)
    lab, made = rgb_to_lab(rgb), rgb_to_lab(gray(rgb))
    assert torch.allclose(made[:, :1], lab[:, :1], atol=0.1)
    assert made[:, 1:].abs().max() < 0.1 < lab[:, 1:].abs().max()


def test_the_difference_is_of_means_of_cells():
    ab = torch.zeros(1, 2, 28, 28)
    ab[..., ::2] = 30.0  # stripes; every cell of 2 x 2 pixels has the mean 15
    assert torch.equal(cells(ab), torch.full((1, 2, 14, 14), 15.0))
    assert difference(cells(ab), torch.full((1, 2, 14, 14), 15.0)) == 0
    # 10 off: 10^2 / 40, scaled as Eq. 5; 50 off: linear, 2 x 50 - 40
    for off, expected in ((10.0, 2.5), (50.0, 60.0)):
        found = difference(torch.zeros(1, 2, 14, 14), torch.full((1, 2, 14, 14), off))
        assert found.item() == pytest.approx(expected / 110)


@pytest.fixture
def config(meadows, features, taught, tmp_path):
    """Automatic batches but for every third, which has references."""
    tiny = tiny_config(meadows, tmp_path / "run")
    stage = replace(
        tiny.stages[0], steps=30, automatic_every=0, reference_every=3, content=0.0,
        supervision=0.0, teaching=50.0, learning_rate=3e-3, learns="color", final_fraction=0.1,
    )  # fmt: skip
    files = {"distillation_weights": features, "teacher": taught}
    return replace(tiny, stages=(stage,), ema=0.0, **files)


def test_phi_learns_from_the_teacher_alone(config, tmp_path):
    weights = run(config)
    rows = losses(tmp_path / "run")
    assert {step % 3 for step, row in rows.items() if "teaching" not in row} == {1}
    taught = [row["teaching"] for row in rows.values() if "teaching" in row]
    assert np.mean(taught[-5:]) < 0.7 * np.mean(taught[:5])
    card = checkpoint.read_info(weights).card
    assert card["training"]["teacher"] == "teacher.safetensors"


def test_what_the_teacher_sees_is_the_same_square(config):
    pairs = Pairs(find(config.data), Plan(config, 17))
    assert pairs[0, 0].wide.shape == (4, 3, 0, 0)
    batch = pairs[1, 0]
    assert batch.wide.shape == (4, 3, 224, 224)
    shrunk = torch.nn.functional.adaptive_avg_pool2d(batch.wide, 4)
    assert torch.allclose(shrunk, torch.nn.functional.adaptive_avg_pool2d(batch.low, 4), atol=0.02)


def test_what_is_missing_is_said(meadows, features, tmp_path, capsys):
    with pytest.raises(ValueError, match="window must be 0, got 32"):
        Stage(teaching=1.0, window=32)
    stages = (Stage(teaching=1.0),)
    with pytest.raises(ValueError, match=r"teaching needs distillation_weights.*MobileNet"):
        TrainConfig(stages=stages)
    with pytest.raises(ValueError, match=r"teaching needs teacher.*training/teacher\.py"):
        TrainConfig(stages=stages, distillation_weights="m.npz")
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match=r"other\.safetensors is not a file of training/teacher"):
        Teacher(features, str(other))
    for words, said in (
        ("--output t.safetensors --features f.npz", "--data is missing"),
        ("--output t.safetensors --data d", "--features is missing"),
        (f"--output t.npz --data {meadows} --features {features}", "got 't.npz'"),
        (f"--output t.safetensors --data {tmp_path / 'no'} --features {features}", "no fol"),
    ):
        with pytest.raises(SystemExit):
            teacher.main(words.split())
        assert said in capsys.readouterr().err


def test_a_head_starts_from_gray():
    assert torch.equal(Head()(torch.rand(1, 512, 3, 5)), torch.zeros(1, 2, 3, 5))
