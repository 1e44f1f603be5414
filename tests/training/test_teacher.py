"""The teacher of automatic colours: it learns what goes with what, and phi follows it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from training_run import losses, make_efficientnet, tiny_config

pytest.importorskip("accelerate")
pytest.importorskip("skimage")

from scsnet import checkpoint
from scsnet.color import rgb_to_gray, rgb_to_lab
from training import teacher
from training.config import TrainConfig
from training.config.schedule import Plan
from training.config.stage import Stage
from training.data.dataset import Pairs, stack_photos
from training.data.photos import find_photos
from training.efficientnet import EfficientNetLite, folded
from training.engine.loop import train as run
from training.teaching import Teacher, cells, difference

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
    """Weights of a small EfficientNet-Lite."""
    return make_efficientnet(tmp_path_factory.mktemp("features") / "efficientnet.pth")


@pytest.fixture(scope="module")
def taught(meadows, features, tmp_path_factory):
    """A teacher's file."""
    output = tmp_path_factory.mktemp("taught") / "teacher.safetensors"
    teacher.main(
        f"--data {meadows} --features {features} --output {output} "
        "--epochs 20 --batch 8 --learning-rate 3e-3".split()
    )
    return str(output)


def test_a_teacher_knows_what_goes_with_what(taught):
    made = Teacher.load(taught)
    assert not any(p.requires_grad for p in made.parameters())
    for color, sign in ((GREEN, -1), (RED, 1)):
        rgb = stack_photos([np.full((256, 256, 3), color, np.uint8)])
        ab = made.expected(rgb)
        assert ab.shape == (1, 2, 16, 16)
        assert (sign * ab[:, 0].mean()) > 10
        assert torch.allclose(made.expected(rgb_to_gray(rgb)), ab, atol=1.0)  # it sees L alone


def test_a_low_temperature_asks_for_the_likelier_colour(taught, monkeypatch):
    made = Teacher.load(taught)
    odds = torch.zeros(len(made.palette))
    odds[0], odds[1:] = 2.0, -30.0
    odds[1] = 1.0
    monkeypatch.setattr(made, "forward", lambda rgb: odds.view(1, -1, 1, 1))
    for temperature in (1.0, 0.5):
        likelier = 1 / (1 + np.exp(-1 / temperature))  # of two whose logits differ by 1
        expected = likelier * made.palette[0] + (1 - likelier) * made.palette[1]
        found = made.expected(torch.zeros(1, 3, 4, 4), temperature)
        assert torch.allclose(found.flatten(), expected, atol=1e-3)


def test_what_weighs_more_in_photos_weighs_more_in_the_teacher(taught, monkeypatch):
    made = Teacher.load(taught)
    made.palette = torch.tensor([[0.0, 0.0], [-30.0, 40.0]])
    monkeypatch.setattr(made, "forward", lambda rgb: torch.zeros(1, 2, 1, 1))
    for rebalance, coldness, weight in ((0.4, 0.0, 1 + 0.4 * 50 / 20), (0.0, 2.0, 1 + 2 * 30 / 20)):
        found = made.expected(torch.zeros(1, 3, 4, 4), 1.0, rebalance, coldness)
        expected = made.palette[1] * weight / (1 + weight)
        assert torch.allclose(found.flatten(), expected, atol=1e-4)


def test_a_palette_has_what_occurs():
    ab = torch.tensor([[0.0, 0.0], [0.0, 21.0], [-38.0, 0.0]]).T.reshape(1, 2, 1, 3)
    palette = teacher.Palette(ab)
    assert palette.colors.tolist() == [[-40, 0], [0, 0], [0, 20]]
    assert palette.classes(ab).tolist() == [[[1, 2, 0]]]
    far = torch.tensor([-70.0, 9.0]).reshape(1, 2, 1, 1)
    assert palette.classes(far).item() == 0  # the nearest that occurs


def test_efficientnet_is_the_published_one(features):
    """Against batch norm as such, and padding as TensorFlow's SAME is written down."""
    published = torch.load(features, weights_only=True)
    net = EfficientNetLite(folded(features)).eval()

    def step(x, conv, norm, stride=1, act=True):
        weight = published[f"{conv}.weight"]
        size, groups = weight.shape[2], x.shape[1] if "depthwise" in conv else 1
        total = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in x.shape[2:]]
        (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in total)
        x = torch.nn.functional.pad(x, (left, right, top, bottom))
        x = torch.nn.functional.conv2d(x, weight, stride=stride, groups=groups)
        kinds = ("running_mean", "running_var", "weight", "bias")
        x = torch.nn.functional.batch_norm(x, *(published[f"{norm}.{k}"] for k in kinds), eps=1e-3)
        return x.clamp(0, 6) if act else x

    rgb = torch.rand(1, 3, 61, 90)
    x = step((rgb * 255 - 127) / 128, "_conv_stem", "_bn0", 2)
    for n, stride in enumerate((1, 2, 2, 1, 2, 1, 2, 1)):
        y, block = x, f"_blocks.{n}"
        if n:
            y = step(y, f"{block}._expand_conv", f"{block}._bn0")
        y = step(y, f"{block}._depthwise_conv", f"{block}._bn1", stride)
        y = step(y, f"{block}._project_conv", f"{block}._bn2", act=False)
        x = x + y if n in (0, 3) else y  # only these keep width and size
        if n == 5:
            finer = x
    expected = finer, step(x, "_conv_head", "_bn1")
    for found, wanted in zip(net(rgb), expected, strict=True):
        assert found.shape == wanted.shape
        assert torch.allclose(found, wanted, atol=1e-4)
    assert finer.shape[2:] == (4, 6)


def test_what_it_looks_at_has_no_colour():
    rgb = torch.rand(2, 3, 8, 8)
    lab, made = rgb_to_lab(rgb), rgb_to_lab(rgb_to_gray(rgb))
    assert torch.allclose(made[:, :1], lab[:, :1], atol=0.1)
    assert made[:, 1:].abs().max() < 0.1 < lab[:, 1:].abs().max()


def test_the_difference_is_of_means_of_cells():
    ab = torch.zeros(1, 2, 32, 32)
    ab[..., ::2] = 30.0  # stripes; every cell of 2 x 2 pixels has the mean 15
    assert torch.equal(cells(ab), torch.full((1, 2, 16, 16), 15.0))
    assert difference(cells(ab), torch.full((1, 2, 16, 16), 15.0)) == 0
    # 10 off: 10^2 / 40, scaled as Eq. 5; 50 off: linear, 2 x 50 - 40
    for off, expected in ((10.0, 2.5), (50.0, 60.0)):
        found = difference(torch.zeros(1, 2, 16, 16), torch.full((1, 2, 16, 16), off))
        assert found.item() == pytest.approx(expected / 110)


@pytest.fixture
def config(meadows, taught, tmp_path):
    """Automatic batches but for every third, which has references."""
    tiny = tiny_config(meadows, tmp_path / "run")
    stage = replace(
        tiny.stages[0], steps=75, automatic_every=0, reference_every=3, content=0.0,
        supervision=0.0, teaching=50.0, learning_rate=3e-3, learns="color", final_fraction=0.1,
    )  # fmt: skip
    return replace(tiny, stages=(stage,), ema=0.0, teacher=taught)


def test_phi_learns_from_the_teacher_alone(config, tmp_path):
    weights = run(config)
    rows = losses(tmp_path / "run")
    assert {step % 3 for step, row in rows.items() if "teaching" not in row} == {1}
    taught = [row["teaching"] for row in rows.values() if "teaching" in row]
    assert np.mean(taught[-10:]) < 0.7 * np.mean(taught[:10])
    card = checkpoint.read_info(weights).card
    assert card["training"]["teacher"] == "teacher.safetensors"


def test_what_the_teacher_sees_is_the_same_square(config):
    pairs = Pairs(find_photos(config.data), Plan(config, 17))
    assert pairs[0, 0].wide.shape == (4, 3, 0, 0)
    batch = pairs[1, 0]
    assert batch.wide.shape == (4, 3, 256, 256)
    shrunk = torch.nn.functional.adaptive_avg_pool2d(batch.wide, 4)
    assert torch.allclose(shrunk, torch.nn.functional.adaptive_avg_pool2d(batch.low, 4), atol=0.02)


def test_what_is_missing_is_said(meadows, features, tmp_path, capsys):
    with pytest.raises(ValueError, match="window must be 0, got 32"):
        Stage(teaching=1.0, window=32)
    stages = (Stage(teaching=1.0),)
    with pytest.raises(ValueError, match=r"teaching needs teacher.*training/teacher\.py"):
        TrainConfig(stages=stages)
    with pytest.raises(ValueError, match="temperature must be above 0 and at most 1, got 0"):
        Stage(temperature=0.0)
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match=r"other\.safetensors is not a file of training/teacher"):
        Teacher.load(str(other))
    with pytest.raises(ValueError, match=r"no EfficientNet-Lite: _bn0\.running_var is missing"):
        folded(str(other))
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"broken\.pth is not a readable \.pth file"):
        folded(str(broken))
    for words, said in (
        ("--output t.safetensors --features f.pth", "--data is missing"),
        ("--output t.safetensors --data d", "--features is missing"),
        (f"--output t.npz --data {meadows} --features {features}", "got 't.npz'"),
        (f"--output t.safetensors --data {tmp_path / 'no'} --features {features}", "no fol"),
    ):
        with pytest.raises(SystemExit):
            teacher.main(words.split())
        assert said in capsys.readouterr().err
