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
from safetensors.torch import save_file  # noqa: E402

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


def make_vgg16(path):
    """Writes the layout of VGG16 on the Hub, with few channels behind the first block."""
    generator = torch.Generator().manual_seed(0)
    tensors, inputs, index = {"pre_logits.fc1.weight": torch.zeros(2, 2)}, 3, 0
    for count, width in ((2, 64), (2, 6), (3, 6), (3, 6), (3, 6)):
        for _ in range(count):
            weight = torch.randn(width, inputs, 3, 3, generator=generator) / 10
            tensors |= {f"features.{index}.weight": weight}
            tensors |= {f"features.{index}.bias": torch.zeros(width)}
            inputs, index = width, index + 2
        index += 1
    save_file(tensors, path)
    return path


def tiny_config(data, output, **changes):
    """Two stages of 4 steps, every step logged, a checkpoint every second one; float32."""
    stages = (
        Stage(
            steps=4, batch=4, size=16, trains="all_but_texture", reference_fraction=0.5, warmup=2
        ),
        Stage(
            steps=4,
            batch=4,
            size=16,
            magnification=(2.0, 3.0),
            window=32,
            reference_fraction=0.5,
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
