"""A real ComfyUI with the pack linked in, once per session; without one these tests skip, loudly."""

import shutil
from pathlib import Path

import pytest
import torch
from archive import unpack
from browser import CHROMIUM, FLAGS, draws_elements, opened, shoot
from prompts import TINY
from server import Server, comfy_path

from scsnet import SCSNet, SCSNetConfig
from scsnet.checkpoint import save

HERE = Path(__file__).parent
ROOT = HERE.resolve().parents[1]
PACK = "scsnet"  # the folder that the registry installs the pack into
SAMPLES = ROOT / "web" / "samples"
MISSING = not (comfy_path() / "main.py").is_file()


def pytest_collection_modifyitems(items):
    """Every test here needs a ComfyUI."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.comfy)
            item.add_marker(pytest.mark.slow)
            if MISSING:
                reason = f"no ComfyUI at {comfy_path()}; set COMFYUI_PATH"
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter):
    """Say how many tests were skipped: nobody shall take skipped for passed."""
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum("tests/comfyui" in report.nodeid for report in skipped)
    if count:
        terminalreporter.section("NOT TESTED ON A REAL COMFYUI", red=True, bold=True)
        where = f"There is none at {comfy_path()}: set COMFYUI_PATH. " if MISSING else ""
        line = f"{count} tests in tests/comfyui were skipped. {where}Reasons: pytest -rs."
        terminalreporter.write_line(line)


def random_weights(path, config):
    """Write untrained weights whose results depend on the picture and on the references."""
    torch.manual_seed(0)
    net = SCSNet(config)
    for block in net.texture_encoder.blocks:
        torch.nn.init.normal_(block.conv2.weight, std=0.05)
    with torch.no_grad():
        net.color_branch.cross_attention.post.weight *= 10
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, net, card={})


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A base directory for ComfyUI with small weights and the sample pictures."""
    folder = tmp_path_factory.mktemp("comfy")
    config = SCSNetConfig(width=8, depth=2, working_size=32)
    random_weights(folder / "models" / "scsnet" / TINY, config)
    shutil.copytree(SAMPLES, folder / "input")
    return folder


@pytest.fixture(scope="session")
def comfy(base):
    """The server."""
    with Server(base, {PACK: ROOT}) as server:
        assert "IMPORT FAILED" not in server.log(), server.log()
        yield server


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """The pack as the registry ships it, and no more."""
    return unpack(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def browser():
    """Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no Chromium at {CHROMIUM}")
    with sync_api.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module", params=["canvas", "vue"])
def tab(browser, comfy, request):
    """Nodes drawn on the canvas, or as elements ("Nodes 2.0" of newer frontends)."""
    vue = request.param == "vue"
    with opened(browser, comfy, vue) as tab:
        if vue and not draws_elements(tab):
            pytest.skip("this frontend draws on the canvas only")
        version = tab.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__ ?? '0.0'")
        if vue and tuple(int(part) for part in version.split(".")[:2]) < (1, 28):
            pytest.skip(f"{version} draws no text, pictures or notes of any pack as elements yet")
        yield tab


@pytest.fixture
def page(tab, comfy, request):
    """The same page for all tests: each opens its own workflow."""
    shutil.copytree(SAMPLES, comfy.base / "input", dirs_exist_ok=True)
    yield tab
    shoot(tab, request.node.name)
    for _ in range(2):  # dialogs and menus that a failed test has left open
        tab.keyboard.press("Escape")
