"""A tiny run for tests: photos, config, and `python training_run.py CONFIG.json [--resume]`."""

import contextlib
import io
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
from training.config import Stage, TrainConfig  # noqa: E402


def make_photos(folder, count=12):
    """Write photos of soft random colours, 80 x 64."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        small.resize((80, 64), Image.Resampling.BICUBIC).save(folder / f"{i:02}.png")
    return folder


def make_vgg16(path):
    """Write a file in the layout of VGG16 on the Hub, with few channels behind the first block."""
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
    shared = {"steps": 4, "batch": 4, "size": 16, "reference_fraction": 0.5}
    first = Stage(**shared, trains="all_but_texture", warmup=2)
    output_part = {"magnification": (2.0, 3.0), "window": 32}
    second = Stage(**shared, **output_part, warmup=0, adversarial=1.0, degrade=0.5)
    values = {
        "data": (str(data),),
        "output": str(output),
        "network": SCSNetConfig(width=8, depth=1),
        "stages": (first, second),
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
    """Return an `on_step` that ends a run after a step."""

    def on_step(done):
        if done == step:
            raise StopError

    return on_step


def losses(output):
    """Read the log: step -> the numbers that do not depend on the clock."""
    rows = map(json.loads, (Path(output) / "log.jsonl").read_text().splitlines())
    return {
        row["step"]: {k: v for k, v in row.items() if k != "pictures_per_second"}
        for row in rows
        if "gradient" in row
    }


def refuse(main, line):
    """Run a command that must end with an error; return what it says."""
    text, code = io.StringIO(), 0
    with contextlib.redirect_stderr(text):
        try:
            main(line.split())
        except SystemExit as end:
            code = end.code
    assert code, f"{line} was accepted"
    return f"{text.getvalue()}{code}"


if __name__ == "__main__":
    from training.engine.checkpoints import RunError
    from training.engine.loop import train

    torch.set_num_threads(1)
    config = TrainConfig.from_dict(json.loads(Path(sys.argv[1]).read_text()))
    try:
        train(config, resume="--resume" in sys.argv)
    except RunError as error:
        sys.exit(str(error))
