"""Runs in processes of their own: killed at any moment, on a disk that is full, two that act as one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from training_run import losses, tiny_config

pytest.importorskip("accelerate")

from training.engine import checkpoints

SCRIPT = Path(__file__).parents[1] / "support" / "training_run.py"
KILLS = int(os.environ.get("SCSNET_KILLS", "5"))
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
# Without a GPU accelerate starts its processes with --multi_gpu all the same; its --cpu wants MPI.
ACCELERATE = (
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"),
    *("--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"),
)
pytestmark = pytest.mark.slow


def start(config, folder, *extra, launcher=()):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "given.json"
    path.write_text(json.dumps(config.to_dict()))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, str(SCRIPT), str(path), *extra],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    """Waits for the process to end; shows its output if it failed."""
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def lines(output):
    """Counts the lines of a run's log."""
    try:
        return (output / "log.jsonl").read_text().count("\n")
    except OSError:
        return 0


def test_killed_at_random_moments(photos, tmp_path):
    """Kills a run at random times (SCSNET_KILLS of them, 5 by default): at the start, within a step, during a checkpoint."""
    steps = 4 * KILLS
    config = tiny_config(photos, tmp_path / "whole", save_every=1)
    config = replace(config, stages=(replace(config.stages[1], steps=steps),))
    finish(start(config, tmp_path / "a"))
    cut = replace(config, output=str(tmp_path / "cut"))
    rng = random.Random(seed := 1)
    moments = []
    for _ in range(KILLS):
        before = lines(tmp_path / "cut")
        process = start(cut, tmp_path / "b", "--resume")
        if rng.random() < 0.2:  # early
            time.sleep(rng.uniform(0, 1.5))
        else:
            more = before + rng.randint(1, 4)
            while lines(tmp_path / "cut") < more and process.poll() is None:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.08))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        moments.append((process.returncode, lines(tmp_path / "cut")))
    finish(start(cut, tmp_path / "b", "--resume"))
    print(f"seed {seed}: exit code and steps logged at each kill: {moments}")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole"), f"seed {seed}: {moments}"
    assert any(code == -signal.SIGKILL for code, _ in moments)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 50 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=50m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_of_50_mb(photos, tmp_path, small_disk):
    """When checkpoints fill the disk the run ends with a message, and can be resumed when there is room."""
    whole = tiny_config(photos, tmp_path / "whole", save_every=1, keep=1)
    whole = replace(whole, stages=(replace(whole.stages[1], steps=40),))
    finish(start(whole, tmp_path / "a"))
    options = {"output": str(small_disk / "run"), "keep": 100, "trackers": ("tensorboard",)}
    process = start(replace(whole, **options), tmp_path / "b")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "No space left on device" in output.splitlines()[-1]
    assert "the last good checkpoint is" in output.splitlines()[-1]
    assert "Traceback" not in output
    folder = small_disk / "run" / "checkpoints"
    kept = checkpoints.listed(folder)
    assert len(kept) > 2
    assert [p.name for p in folder.iterdir() if p not in kept] == []
    checkpoints.load(kept[-1])
    for old in kept[:-1]:
        old.unlink()
    finish(start(replace(whole, **options | {"keep": 1}), tmp_path / "b", "--resume"))
    assert losses(small_disk / "run") == losses(tmp_path / "whole")


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_are_one(photos, tmp_path, launcher):
    config = tiny_config(photos, tmp_path / "one")
    finish(start(config, tmp_path / "a"))
    two = replace(config, output=str(tmp_path / "two"))
    output = finish(start(two, tmp_path / "b", launcher=launcher))
    assert "2 process(es) on cpu" in output
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 8
    for step, row in one.items():
        # the norm of the gradient amplifies rounding most
        assert row.pop("gradient") == pytest.approx(two[step].pop("gradient"), rel=3e-3), step
        assert row == pytest.approx(two[step], rel=1e-3, abs=1e-5), step


def test_a_signal_to_one_process_stops_both(photos, tmp_path):
    """Both processes end after the same step with a checkpoint, and the run can be resumed."""
    config = tiny_config(photos, tmp_path / "run", save_every=1000)
    config = replace(config, stages=(replace(config.stages[1], steps=400),))
    process = start(config, tmp_path / "a", launcher=TORCHRUN)
    while lines(tmp_path / "run") < 2 and process.poll() is None:
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    workers[-1].terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert output.count("stopped at step") >= 1
    assert "Connection closed" not in output
    (last,) = checkpoints.listed(tmp_path / "run" / "checkpoints")
    step = checkpoints.load(last)["step"]
    assert f"stopped at step {step}" in output
    resumed = replace(config, stages=(replace(config.stages[0], steps=step + 2),))
    finish(start(resumed, tmp_path / "b", "--resume"))


def test_weights_that_differ_between_processes_are_noticed(root, tmp_path):
    script = tmp_path / "compare.py"
    script.write_text(
        "import torch\n"
        "import torch.distributed as dist\n"
        "from training.engine.distributed import is_equal_everywhere\n"
        "dist.init_process_group('gloo')\n"
        "checksum = torch.tensor(2**60 + 1)\n"
        "assert is_equal_everywhere(checksum)\n"
        "assert not is_equal_everywhere(checksum + dist.get_rank())\n"
        "dist.barrier()\n"  # gloo aborts a process that still communicates when the other one leaves
        "dist.destroy_process_group()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *TORCHRUN, str(script)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
