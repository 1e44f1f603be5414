"""A tiny run for tests: photos, config, and `python training_run.py CONFIG.json [--resume]`."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from scsnet import SCSNetConfig  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.config.stage import Stage  # noqa: E402


def make_photos(folder, count=12):
    """Soft random colours, 80 x 64."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        small.resize((80, 64), Image.Resampling.BICUBIC).save(folder / f"{i:02}.png")
    return folder


def make_mobilenet(file):
    """Random features in the layout of MobileNet v1, most of them 8 channels wide, that let light and dark through."""
    rng = np.random.default_rng(0)
    arrays = {
        "conv1.weight": np.abs(rng.normal(0, 0.1, (8, 3, 3, 3))).astype("f4"),
        "conv1.bias": np.zeros(8, "f4"),
    }
    for n in range(1, 12):
        outputs = 512 if n == 11 else 8
        arrays[f"dw{n}.weight"] = rng.normal(0, 0.05, (8, 1, 3, 3)).astype("f4")
        arrays[f"dw{n}.weight"][:, :, 1, 1] = 1
        arrays[f"dw{n}.bias"] = np.zeros(8, "f4")
        arrays[f"pw{n}.weight"] = np.abs(rng.normal(0, 0.2, (outputs, 8, 1, 1))).astype("f4")
        arrays[f"pw{n}.bias"] = np.ones(outputs, "f4") / 10
    np.savez(file, **arrays)
    return str(file)


def make_efficientnet(file):
    """A small EfficientNet-Lite as published: seven stages, the third of two blocks; it lets light and dark through."""
    generator = torch.Generator().manual_seed(0)
    weights = {}

    def conv(name, outputs, inputs, size=1):
        weight = torch.rand(outputs, inputs, size, size, generator=generator)
        weights[f"{name}.weight"] = weight / weight.sum((1, 2, 3), keepdim=True)

    def norm(name, width):
        for kind, low in (("weight", 0.8), ("running_var", 0.8), ("bias", 0), ("running_mean", 0)):
            values = torch.rand(width, generator=generator) * 0.4
            weights[f"{name}.{kind}"] = low + values
        weights[f"{name}.num_batches_tracked"] = torch.tensor(1)

    conv("_conv_stem", 4, 3, 3)
    norm("_bn0", 4)
    before = 4
    for n, (width, size) in enumerate(
        ((4, 3), (5, 3), (6, 5), (6, 5), (7, 3), (8, 5), (9, 5), (10, 3))
    ):
        block, inner = f"_blocks.{n}", before if n == 0 else 2 * before
        if n:
            conv(f"{block}._expand_conv", inner, before)
            norm(f"{block}._bn0", inner)
        conv(f"{block}._depthwise_conv", inner, 1, size)
        norm(f"{block}._bn1", inner)
        conv(f"{block}._project_conv", width, inner)
        norm(f"{block}._bn2", width)
        before = width
    conv("_conv_head", 16, before)
    norm("_bn1", 16)
    weights["_fc.weight"], weights["_fc.bias"] = torch.zeros(3, 16), torch.zeros(3)
    torch.save(weights, file)
    return str(file)


def tiny_config(data, output, **changes):
    """Two stages of 4 steps, every step logged, a checkpoint every second one; float32."""
    stages = (
        Stage(steps=4, batch=4, size=16, texture=False, automatic_every=2, warmup=2),
        Stage(
            steps=4,
            batch=4,
            size=16,
            working_sizes=(12, 16),
            magnification=(2.0, 3.0),
            window=32,
            automatic_every=2,
            warmup=0,
            adversarial=1.0,
            degrade=0.5,
        ),
    )
    values = {
        "data": (str(data),),
        "output": str(output),
        "network": SCSNetConfig(width=8, depth=1),
        "stages": stages,
        "precision": "float32",
        "discriminator_width": 4,
        "log_every": 1,
        "save_every": 2,
        "validation_count": 2,
        "trackers": (),
    }
    return TrainConfig(**(values | changes))


class StopError(Exception):
    """Ends a run between two steps."""


def stop_at(step):
    """For `on_step` of a run."""

    def on_step(done):
        if done == step:
            raise StopError

    return on_step


def losses(output):
    """Step -> the numbers of the log that do not depend on the clock."""
    rows = {}
    for line in (Path(output) / "log.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "gradient" in row:
            rows[row["step"]] = {k: v for k, v in row.items() if k != "pictures_per_second"}
    return rows


if __name__ == "__main__":
    from training.engine.checkpoints import RunError
    from training.engine.loop import train

    torch.set_num_threads(1)
    try:
        train(
            TrainConfig.from_dict(json.loads(Path(sys.argv[1]).read_text())),
            resume="--resume" in sys.argv,
        )
    except RunError as error:
        sys.exit(str(error))
