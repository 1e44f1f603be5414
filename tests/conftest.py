"""Fixtures for all tests. The root goes last on sys.path: our `nodes/` must not hide ComfyUI's."""

import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from hub_server import HubServer  # noqa: E402
from training_run import make_photos  # noqa: E402

from scsnet import SCSNet, SCSNetConfig, checkpoint  # noqa: E402


@pytest.fixture
def root():
    return ROOT


@pytest.fixture
def photos(tmp_path):
    """A folder of small photos to train on."""
    return make_photos(tmp_path / "photos")


@pytest.fixture
def tiny_config():
    """The whole architecture, 8 channels wide and 2 blocks deep."""
    return SCSNetConfig(width=8, depth=2, working_size=32)


@pytest.fixture
def tiny_net(tiny_config):
    """An untrained network, whose psi_E is not the identity, in eval mode, gradients off."""
    torch.manual_seed(0)
    net = SCSNet(tiny_config).eval().requires_grad_(False)
    for block in net.texture_encoder.blocks:
        torch.nn.init.normal_(block.conv2.weight, std=0.1)
    return net


@pytest.fixture
def weights(tmp_path, tiny_net):
    """Its weights file."""
    path = tmp_path / "tiny.safetensors"
    checkpoint.save(path, tiny_net, card={"steps": 7})
    return path


@pytest.fixture
def home(tmp_path):
    """Folder of the Hub client's cache."""
    return tmp_path / "home"


@pytest.fixture
def hub(home, monkeypatch):
    """A Hub, and its real client set to it as HF_ENDPOINT and HF_HOME would."""
    constants = "huggingface_hub.constants."
    with HubServer() as server:
        monkeypatch.setattr(constants + "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants + "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants + "HF_HUB_CACHE", str(home))
        monkeypatch.setattr(constants + "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("time.sleep", lambda _: None)  # between the client's retries
        monkeypatch.delenv("HF_TOKEN", raising=False)
        huggingface_hub.close_session()
        yield server
        huggingface_hub.close_session()
