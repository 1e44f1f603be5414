"""What the ComfyUI registry gets: its metadata, and files that its security scan has nothing to say about."""

import ast
import os
import shutil
import subprocess
import sys

import pytest
from archive import archived

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")

# What the registry's scan has flagged in other packs, be it ever so harmless.
DISLIKED = {"subprocess", "urllib", "requests", "socket", "pickle", "ctypes", "marshal"}


@pytest.fixture
def metadata(root):
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))


def test_metadata(metadata):
    assert metadata["project"]["name"] == "scsnet"  # never changes; and never "ComfyUI" in it
    assert metadata["project"]["version"].count(".") == 2
    assert metadata["tool"]["comfy"]["PublisherId"]
    assert metadata["tool"]["comfy"]["requires-comfyui"] == ">=0.3.64"


def test_workflows_name_this_version(root, metadata):
    version = metadata["project"]["version"]
    for path in (root / "example_workflows").glob("*.json"):
        assert f'"ver": "{version}"' in path.read_text("utf-8"), path.name


def test_requirements_leave_the_hosts_packages_alone(root):
    names = {
        line.split("#")[0].strip() for line in (root / "requirements.txt").read_text().splitlines()
    }
    assert not {name for name in names if name.startswith(("torch", "numpy", "opencv"))}


@pytest.mark.skipif(not shutil.which("bash"), reason="the workflow runs in bash")
@pytest.mark.skipif(sys.platform != "linux", reason="the workflow runs on Linux")
def test_the_publisher_says_where_its_repository_is(root, tmp_path):
    """The step of the publishing workflow, run on a copy."""
    lines = (root / ".github" / "workflows" / "publish.yml").read_text().splitlines()
    start = lines.index("        run: |") + 1
    script = [line for line in lines[start:] if line.startswith(" " * 10)][: lines[start:].index(
        next(line for line in lines[start:] if not line.startswith(" " * 10))
    )]  # fmt: skip
    shutil.copy(root / "pyproject.toml", tmp_path)
    place = {
        "GITHUB_REPOSITORY": "someone/scsnet",
        "GITHUB_SHA": "abc",
        "GITHUB_SERVER_URL": "https://github.com",
    }
    subprocess.run(
        ["bash", "-e", "-c", "\n".join(script)],
        cwd=tmp_path,
        env={**os.environ, **place},
        check=True,
    )
    said = tomllib.loads((tmp_path / "pyproject.toml").read_text("utf-8"))
    assert said["project"]["urls"] == {"Repository": "https://github.com/someone/scsnet"}
    icon = "https://raw.githubusercontent.com/someone/scsnet/abc/icon.png"
    assert said["tool"]["comfy"]["Icon"] == icon
    assert (root / "icon.png").is_file()


def test_the_archive_holds_what_a_user_needs():
    names = archived()
    assert {name.split("/")[0] for name in names} == {
        ".comfyignore", "LICENSE", "README.md", "__init__.py", "example_workflows", "icon.png", "locales", "nodes",
        "pyproject.toml", "requirements.txt", "scsnet", "web",
    }  # fmt: skip
    needed = {
        "scsnet/weights/scsnet.safetensors", "web/scsnet.js", "web/docs/LoadSCSNet.md", "web/docs/LoadSCSNet/zh.md",
        "web/docs/pictures/auto.jpg", "web/samples/scsnet_alps.jpg", "locales/zh/nodeDefs.json",
        "example_workflows/Colorize a photo and enlarge it 4 times.json", "example_workflows/Colorize a photo and enlarge it 4 times.jpg",
    }  # fmt: skip
    assert needed <= set(names)
    kinds = {"py", "js", "json", "md", "jpg", "png", "mp4", "toml", "txt", "safetensors"}
    assert {name.rsplit(".")[-1] for name in names} <= kinds | {"LICENSE", "comfyignore"}


def shipped(root):
    return [root / "__init__.py", *root.glob("nodes/**/*.py"), *root.glob("scsnet/**/*.py")]


def test_nothing_that_the_security_scan_dislikes(root):
    for path in shipped(root):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path
            elif isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in ("os.environ", "torch.load"), path
            assert not {name.split(".")[0] for name in names} & DISLIKED, (path, names)
