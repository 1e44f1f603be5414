"""Where colours start: phi_E^s that sees as VGG does, stages that judge coarse colours, encoders that stay behind."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from training_run import losses, tiny_config

pytest.importorskip("accelerate")

from scsnet import SCSNet, SCSNetConfig, checkpoint
from scsnet.color import gray as to_gray
from scsnet.color import normalize_lab, rgb_to_lab
from training import start
from training.config.stage import Stage
from training.engine.loop import train as run
from training.least_squares import fit
from training.models.backbones import VGG

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """VGG19 up to conv3_2, untrained, in the caffe convention."""
    rng, inputs, arrays = np.random.default_rng(0), 3, {}
    for block, width in ((1, 64), (2, 128), (3, 256)):
        for i in (1, 2):
            scale = (2 / (9 * inputs)) ** 0.5
            name = f"block{block}_conv{i}"
            arrays[f"{name}.weight"] = rng.normal(0, scale, (width, inputs, 3, 3)).astype("f4")
            arrays[f"{name}.bias"] = rng.normal(0, 20, width).astype("f4")
            inputs = width
    file = tmp_path_factory.mktemp("vgg") / "vgg19.npz"
    np.savez(file, **arrays)
    return str(file)


@pytest.fixture(scope="module")
def started(vgg_file, tmp_path_factory):
    """Weights to start from, and those whose rest was kept."""
    folder = tmp_path_factory.mktemp("start")
    photos = coarse_and_fine(folder / "photos")
    torch.manual_seed(1)
    kept = SCSNet(SCSNetConfig(depth=1))
    checkpoint.save(folder / "kept.safetensors", kept)
    start.main(
        f"--data {photos} --features {vgg_file} --init {folder / 'kept.safetensors'} "
        f"--photos 40 --size 48 --output {folder / 'start.safetensors'}".split()
    )
    return checkpoint.load(folder / "start.safetensors", dtype=torch.float32), kept


def coarse_and_fine(folder, seed=0):
    """40 photos with noise of every size."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(40):
        octaves = [
            Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8))
            for n in (4, 8, 16, 32, 64)
        ]
        same_size = [
            np.asarray(o.resize((64, 64), Image.Resampling.BICUBIC), float) for o in octaves
        ]
        Image.fromarray(np.mean(same_size, axis=0).astype(np.uint8)).save(folder / f"{i:02}.png")
    return folder


def by_hand(vgg_file, gray):
    """relu3_2, written out."""
    arrays = np.load(vgg_file)
    x = gray * 255 - torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1)
    for block in (1, 2, 3):
        x = F.max_pool2d(x, 2) if block > 1 else x
        for i in (1, 2):
            weight, bias = (
                torch.from_numpy(arrays[f"block{block}_conv{i}.{n}"]) for n in ("weight", "bias")
            )
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
    return x


@torch.no_grad()
def test_phi_sees_what_vgg_sees(started, vgg_file, tmp_path):
    net, kept = started
    photos = coarse_and_fine(tmp_path / "others", seed=1)
    options = start.Options(
        data=(str(photos),), features="x", output="x.safetensors", photos=4, size=48
    )
    rgb = start.looked_at(options)
    assert rgb.shape == (4, 3, 48, 48)
    gray = to_gray(rgb)
    luminance = normalize_lab(rgb_to_lab(gray), net.config)[:, :1]
    expected = by_hand(vgg_file, gray)
    for seen, low, high in ((net, 0.0, 0.1), (kept, 0.3, 1.0)):
        features = seen.color_branch.source_encoder(seen.initial(luminance))
        distance = 1 - F.cosine_similarity(F.relu(features), expected, dim=1).mean()
        assert low <= distance < high


def test_what_is_kept_and_what_is_not(started):
    net, kept = started
    after, before = net.state_dict(), kept.state_dict()
    same = {name for name in after if torch.equal(after[name], before[name])}
    for part in ("initial.", "texture_encoder.", "head.", "color_branch.decoder."):
        assert {name for name in after if name.startswith(part)} <= same
    anew = ("color_branch.source_encoder", "color_branch.reference")
    assert not any(name.endswith("weight") and name.startswith(anew) for name in same)


def test_layers_are_vggs_own(vgg_file):
    vgg = VGG(vgg_file, whole=True)
    gray = torch.rand(1, 1, 16, 16).expand(-1, 3, -1, -1)
    made = list(start.seen_by(vgg, gray))
    assert [tuple(x.shape[1:]) for x in made] == [
        (64, 16, 16), (64, 16, 16), (64, 8, 8), (128, 8, 8), (128, 8, 8), (128, 4, 4), (256, 4, 4), (256, 4, 4),
    ]  # fmt: skip
    assert torch.allclose(F.relu(made[-1]), by_hand(vgg_file, gray), rtol=1e-4, atol=1e-2)


def test_a_fit_finds_the_convolution_that_made_the_data():
    torch.manual_seed(0)
    true, found = (torch.nn.Conv2d(3, 5, 3, stride=2, padding=1) for _ in range(2))
    seen = torch.randn(9, 3, 16, 16)
    with torch.no_grad():
        fit(found, seen, true(seen), torch.Generator().manual_seed(0))
        assert torch.allclose(found(seen), true(seen), atol=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--features {vgg} --output {out}", "--data is missing"),
        ("--data {photos} --output {out}", "--features is missing"),
        ("--data {photos} --features {vgg} --output {out} --init {narrow}", "width 64"),
        ("--data {photos} --features {vgg} --output {out} --init {normed}", 'norm="none"'),
        ("--data {photos} --features {short} --output {out} --size 32", "VGG's is missing"),
        ("--data {photos} --features {vgg} --output {out} --size 30", "multiple of 4"),
        ("--data {photos} --features {narrow} --output {out}", "holds no VGG features"),
        ("--data {grays} --features {vgg} --output {out}", "photos in colour"),
    ],
)
def test_what_is_wrong_is_said(photos, vgg_file, tmp_path, capsys, words, message):
    checkpoint.save(tmp_path / "narrow.safetensors", SCSNet(SCSNetConfig(width=8, depth=1)))
    normed = SCSNetConfig(width=8, depth=1, norm="instance")
    checkpoint.save(tmp_path / "normed.safetensors", SCSNet(normed))
    (tmp_path / "grays").mkdir()
    Image.new("RGB", (32, 32), (90, 90, 90)).save(tmp_path / "grays" / "0.png")
    first = {name: array for name, array in np.load(vgg_file).items() if "block1" in name}
    np.savez(tmp_path / "short.npz", **first)
    files = {name: tmp_path / f"{name}.safetensors" for name in ("narrow", "normed", "out")}
    files |= {"short": tmp_path / "short.npz", "grays": tmp_path / "grays"}
    with pytest.raises(SystemExit):
        start.main(words.format(photos=photos, vgg=vgg_file, **files).split())
    assert message in capsys.readouterr().err
    assert not files["out"].exists()


COARSE = Stage(
    steps=60, batch=4, size=16, coarse=True, reference_every=2, learning_rate=2e-3, warmup=0,
    supervision=0.0, learns="color",
)  # fmt: skip


def parts_that_move(config, stage, tmp_path):
    """The parts of the network that a stage changes."""
    torch.manual_seed(0)
    before = SCSNet(config.network)
    checkpoint.save(tmp_path / "start.safetensors", before)
    init = str(tmp_path / "start.safetensors")
    weights = run(replace(config, stages=(stage,), init=init, ema=0.0))
    begun = checkpoint.load(init, dtype=torch.float32).state_dict()
    after = checkpoint.load(weights, dtype=torch.float32).state_dict()
    moved = [n for n in after if not torch.equal(after[n].half(), begun[n].half())]
    return {".".join(n.split(".")[: 2 if n.startswith("color_branch") else 1]) for n in moved}


def test_coarse_colours_are_learnt_without_a_picture(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(8):  # bright ones are green, dark ones red
        color = (100 + 10 * i, 220, 120) if i % 2 else (120, 10 * i, 20)
        Image.new("RGB", (32, 32), color).save(tmp_path / "photos" / f"{i}.png")
    config = tiny_config(tmp_path / "photos", tmp_path / "run")
    moved = parts_that_move(config, COARSE, tmp_path)
    inside = ("source_encoder", "reference_initial", "reference_encoder", "cross_attention")
    assert moved == {f"color_branch.{name}" for name in (*inside, "extractor")}
    rows = list(losses(tmp_path / "run").values())
    for kind in ("auto_content", "ref_content"):
        found = [row[kind] for row in rows if kind in row]
        assert np.mean(found[-8:]) < 0.7 * np.mean(found[:4])


def test_phi_d_learns_alone(photos, tmp_path):
    stage = replace(COARSE, steps=2, coarse=False, learns="decoder")
    config = tiny_config(photos, tmp_path / "run")
    assert parts_that_move(config, stage, tmp_path) == {"color_branch.decoder"}


@pytest.mark.parametrize("rate", [0.0, 0.01])
def test_encoders_stay_behind(photos, tmp_path, rate):
    config = tiny_config(photos, tmp_path / "run")
    stage = replace(COARSE, steps=3, encoder_rate=rate, learns="everything")
    moved = parts_that_move(config, stage, tmp_path)
    assert {"color_branch.extractor", "color_branch.cross_attention"} <= moved
    encoders = {"initial"} | {
        f"color_branch.{n}" for n in ("source_encoder", "reference_initial", "reference_encoder")
    }
    assert encoders & moved == (encoders if rate else set())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 8}, "coarse makes no picture"),
        ({"perceptual": 1.0}, "coarse makes no picture"),
        ({"learns": "texture"}, "coarse teaches phi"),
        ({"encoder_rate": -0.1}, "encoder_rate must be between 0 and 1"),
        ({"encoder_rate": 1.5}, "encoder_rate must be between 0 and 1"),
    ],
)
def test_stages_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(COARSE, **changes)
