"""A real ComfyUI with the pack linked in, once per session; without one these tests skip, loudly."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from server import Server, comfy_path

from scsnet import SCSNet, SCSNetConfig
from scsnet.checkpoint import BUNDLED, save

ROOT = Path(__file__).resolve().parents[2]
PACK = "scsnet"  # the folder that the registry installs the pack into
SAMPLES = ROOT / "web" / "samples"
TINY = "tiny.safetensors"


HERE = Path(__file__).parent
MISSING = not (comfy_path() / "main.py").is_file()


def pytest_collection_modifyitems(items):
    """Every test here needs a ComfyUI."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.comfy)
            item.add_marker(pytest.mark.slow)
            if MISSING:
                item.add_marker(
                    pytest.mark.skip(reason=f"no ComfyUI at {comfy_path()}; set COMFYUI_PATH")
                )


def pytest_terminal_summary(terminalreporter):
    """Nobody shall take skipped for passed."""
    skipped = [
        report
        for report in terminalreporter.stats.get("skipped", [])
        if "tests/comfyui" in report.nodeid
    ]
    if skipped:
        terminalreporter.section("NOT TESTED ON A REAL COMFYUI", red=True, bold=True)
        where = f"There is none at {comfy_path()}: set COMFYUI_PATH. " if MISSING else ""
        terminalreporter.write_line(
            f"{len(skipped)} tests in tests/comfyui were skipped. {where}Reasons: pytest -rs."
        )


def random_weights(path: Path, config: SCSNetConfig) -> None:
    """Weights of no use but that they run."""
    torch.manual_seed(0)
    net = SCSNet(config)
    for block in net.texture_encoder.blocks:
        torch.nn.init.normal_(block.conv2.weight, std=0.05)
    with torch.no_grad():
        net.color_branch.cross_attention.post.weight *= (
            10  # an untrained network hardly heeds the references
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, net, card={})


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """A base directory for ComfyUI with small weights and the sample pictures."""
    folder = tmp_path_factory.mktemp("comfy")
    random_weights(
        folder / "models" / "scsnet" / TINY, SCSNetConfig(width=8, depth=2, working_size=32)
    )
    (folder / "input").mkdir()
    for sample in SAMPLES.iterdir():
        shutil.copy(sample, folder / "input")
    return folder


@pytest.fixture(scope="session")
def comfy(base):
    """The server."""
    with Server(base, {PACK: ROOT}) as server:
        assert "IMPORT FAILED" not in server.log(), server.log()
        yield server


@pytest.fixture(scope="session")
def bundled() -> None:
    """For tests that need the weights that ship."""
    if not BUNDLED.is_file():
        pytest.skip(f"no bundled weights at {BUNDLED}")
