"""What the ComfyUI registry gets: the metadata, and the files of the archive."""

import re
import shutil
import subprocess
import sys

import pytest
from archive import archived

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")


def test_workflows_name_this_version(root):
    version = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    for path in (root / "example_workflows").glob("*.json"):
        assert f'"ver": "{version}"' in path.read_text("utf-8"), path.name


def requirements(root):
    lines = (root / "requirements.txt").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def test_requirements_leave_the_hosts_packages_alone(root):
    assert requirements(root) == {"huggingface-hub", "einops", "safetensors"}


@pytest.mark.skipif(sys.platform != "linux", reason="the workflow runs on Linux")
def test_publishing_fills_in_addresses_and_dependencies(root, tmp_path, monkeypatch):
    """The script of the workflow's step, run on a copy."""
    workflow = (root / ".github" / "workflows" / "publish.yml").read_text()
    (script,) = re.findall(r"^ {8}run: \|\n((?: {10}.*\n)+)", workflow, re.MULTILINE)
    for name in ("pyproject.toml", "requirements.txt"):
        shutil.copy(root / name, tmp_path)
    page = "![a](docs/a.jpg) [b](tests/README.md#c) [d](https://x.org/d) [e](#e)"
    (tmp_path / "README.md").write_text(page)
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/scsnet")
    monkeypatch.setenv("GITHUB_SHA", "abc")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, check=True)
    published = tomllib.loads((tmp_path / "pyproject.toml").read_text("utf-8"))
    assert published["project"]["urls"]["Repository"] == "https://github.com/someone/scsnet"
    raw = "https://raw.githubusercontent.com/someone/scsnet/abc"
    assert published["tool"]["comfy"]["Icon"] == f"{raw}/icon.png"
    assert (root / "icon.png").is_file()
    assert set(published["project"]["dependencies"]) == requirements(root)
    assert (tmp_path / "README.md").read_text() == (
        f"![a]({raw}/docs/a.jpg) [b](https://github.com/someone/scsnet/blob/abc/tests/README.md#c) "
        "[d](https://x.org/d) [e](#e)"
    )
    # Actions of GitHub are given by version, those of others by commit.
    for action in re.findall(r"uses: (\S+)", workflow):
        assert re.search(r"^actions/[\w-]+@v\d|@[0-9a-f]{40}$", action), action


def test_archive_holds_what_a_user_needs():
    names = archived()
    assert {name.split("/")[0] for name in names} == {
        ".comfyignore", "LICENSE", "README.md", "__init__.py", "example_workflows", "icon.png", "locales", "nodes",
        "pyproject.toml", "requirements.txt", "scsnet", "web",
    }  # fmt: skip
    assert set(names) >= {
        "scsnet/weights/scsnet.safetensors", "web/scsnet.js", "web/docs/LoadSCSNet.md", "web/docs/LoadSCSNet/zh.md",
        "web/docs/pictures/auto.jpg", "web/samples/scsnet_alps.jpg", "locales/zh/nodeDefs.json",
        "example_workflows/Colorize a photo and enlarge it 4 times.json", "example_workflows/Colorize a photo and enlarge it 4 times.jpg",
    }  # fmt: skip
    kinds = {"py", "js", "json", "md", "jpg", "png", "mp4", "toml", "txt", "safetensors"}
    assert {name.rsplit(".")[-1] for name in names} <= kinds | {"LICENSE", "comfyignore"}
