"""Runs in processes of their own: killed at any moment, two that act as one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from training_run import losses, make_photos, tiny_config

from training.engine import checkpoints

SCRIPT = Path(__file__).parents[1] / "support" / "training_run.py"
KILLS = 5
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
# Without a GPU accelerate starts its processes with --multi_gpu all the same; its --cpu wants MPI.
ACCELERATE = [
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"),
    *("--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"),
]
pytestmark = pytest.mark.slow


def start(config, *extra, launcher=()):
    given = Path(f"{config.output}.given.json")
    given.write_text(json.dumps(config.to_dict()))
    return subprocess.Popen(
        [sys.executable, *launcher, str(SCRIPT), str(given), *extra],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    """Wait for the end of the process and return its output."""
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def count_lines(config):
    log = Path(config.output, "log.jsonl")
    return log.read_text().count("\n") if log.exists() else 0


def last_stage(config, steps):
    return replace(config, stages=(replace(config.stages[-1], steps=steps),))


def test_run_killed_at_random_moments_ends_as_one_that_was_not(photos, tmp_path):
    """Killed at the start, within a step, during a checkpoint."""
    config = last_stage(tiny_config(photos, tmp_path / "whole", save_every=1), 4 * KILLS)
    finish(start(config))
    cut = replace(config, output=str(tmp_path / "cut"))
    rng, codes = random.Random(1), []
    for _ in range(KILLS):
        wanted = count_lines(cut) + rng.randint(1, 4)
        process = start(cut, "--resume")
        if rng.random() < 0.2:  # early
            time.sleep(rng.uniform(0, 1.5))
        else:
            while count_lines(cut) < wanted and process.poll() is None:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.08))
        process.kill()
        process.communicate()
        codes.append(process.returncode)
    finish(start(cut, "--resume"))
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert -signal.SIGKILL in codes


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """Config and losses of a run in one process."""
    folder = tmp_path_factory.mktemp("one")
    config = tiny_config(make_photos(folder / "photos"), folder / "run")
    finish(start(config))
    return config, losses(folder / "run")


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_give_the_losses_of_one(tmp_path, one_process, launcher):
    config, one = one_process
    output = finish(start(replace(config, output=str(tmp_path / "two")), launcher=launcher))
    assert "2 process(es) on cpu" in output
    two = losses(tmp_path / "two")
    assert len(one) == len(two) == 8
    for step, row in one.items():
        gradient = {"gradient": row["gradient"]}  # its norm amplifies rounding most
        assert two[step] | gradient == pytest.approx(row, rel=1e-3, abs=1e-5), step
        assert two[step]["gradient"] == pytest.approx(row["gradient"], rel=3e-3), step


def test_signal_to_one_process_stops_both(photos, tmp_path):
    """Both end after the same step with a checkpoint, and the run can be resumed."""
    config = last_stage(tiny_config(photos, tmp_path / "run", save_every=1000), 400)
    process = start(config, launcher=TORCHRUN)
    while count_lines(config) < 2 and process.poll() is None:
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    workers[-1].terminate()
    output, _ = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "Connection closed" not in output
    (last,) = checkpoints.listed(tmp_path / "run" / "checkpoints")
    step = checkpoints.load(last)["step"]
    assert f"stopped at step {step}" in output
    finish(start(last_stage(config, step + 2), "--resume"))
