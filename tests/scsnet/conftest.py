"""The command line, in a folder of its own and with a tiny untrained network."""

import os
import shlex
import socket
import subprocess
import sys
from typing import NamedTuple

import pytest

from scsnet.__main__ import main


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def work(tmp_path, monkeypatch, weights, root):
    """An empty current folder, where other processes find our package and `run` the weights."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("scsnet.cli.args._WEIGHTS", str(weights))
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


@pytest.fixture
def run(work, capsys):
    """Runs a command in this process: `run("info a.safetensors")`. Paths that are not split come after it."""

    def run(line, *arguments):
        try:
            code = main([*shlex.split(line), *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def colorize(run):
    """Runs `scsnet colorize`, which must succeed."""

    def colorize(line, *arguments):
        done = run(f"colorize {line}", *arguments)
        assert done.code == 0, done.err
        return done

    return colorize


@pytest.fixture
def start_two(work, weights):
    """Starts `scsnet colorize` in two processes as `accelerate launch --num_processes 2 -m scsnet` does."""
    processes = []

    def start(line):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        words = [sys.executable, "-m", "scsnet", "colorize", *line.split(), "--weights", weights]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        for rank in "01":
            env = shared | {"RANK": rank, "LOCAL_RANK": rank}
            processes.append(subprocess.Popen(words, env=env, **streams))
        return processes

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def refuse(run, work):
    """Runs a command that must end with exit code 2 and one line on stderr, and change no file."""

    def refuse(line, reason, *arguments):
        before = sorted(work.rglob("*"))
        code, out, err = run(line, *arguments)
        assert (code, out) == (2, ""), line
        assert err.count("\n") == 1
        assert err.startswith("scsnet")
        assert reason in err
        assert sorted(work.rglob("*")) == before

    return refuse
