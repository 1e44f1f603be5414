"""A real ComfyUI with the pack linked in, once per session; without one these tests skip, loudly."""

from __future__ import annotations

import shutil
import warnings
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


def pytest_collection_modifyitems(items):
    """Every test here needs a ComfyUI."""
    here = [item for item in items if Path(item.fspath).parent == Path(__file__).parent]
    missing = not (comfy_path() / "main.py").is_file()
    if here and missing:
        warnings.warn(
            f"{len(here)} tests of the nodes are SKIPPED: no ComfyUI at {comfy_path()}. Set COMFYUI_PATH.", stacklevel=1
        )
    for item in here:
        item.add_marker(pytest.mark.comfy)
        item.add_marker(pytest.mark.slow)
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"no ComfyUI at {comfy_path()}; set COMFYUI_PATH"))


def random_weights(path: Path, config: SCSNetConfig) -> None:
    """Weights of no use but that they run."""
    torch.manual_seed(0)
    net = SCSNet(config)
    for block in net.texture_encoder.blocks:
        torch.nn.init.normal_(block.conv2.weight, std=0.05)
    with torch.no_grad():
        net.color_branch.cross_attention.post.weight *= 10  # an untrained network hardly heeds the references
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, net, card={})


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """A base directory for ComfyUI with small weights and the sample pictures."""
    folder = tmp_path_factory.mktemp("comfy")
    random_weights(folder / "models" / "scsnet" / TINY, SCSNetConfig(width=8, depth=2, working_size=32))
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
