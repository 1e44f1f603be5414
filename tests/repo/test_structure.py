"""Imports that import-linter does not see: of the host, and relative ones out of a package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOST = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "nodes", "server", "execution"}


def imports(path):
    """Top-level names of every absolute import of a file, and its relative ones with their dots."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or "").split(".")[0]
            elif node.module:
                yield node.module.split(".")[0]


def files(folder):
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, folder
    return found


@pytest.mark.parametrize("path", files("scsnet"), ids=lambda p: p.name)
def test_scsnet_knows_only_itself(path):
    depth = len(path.relative_to(ROOT / "scsnet").parts)  # as many dots stay inside of scsnet
    for name in imports(path):
        assert name not in HOST | {"training", "scsnet"}, name
        assert not name.startswith("." * (depth + 1)), name


@pytest.mark.parametrize("path", files("training"), ids=lambda p: p.name)
def test_training_knows_no_host(path):
    assert not set(imports(path)) & HOST
    assert not any(name.startswith("..") for name in imports(path))


@pytest.mark.parametrize("path", files("nodes"), ids=lambda p: p.name)
def test_nodes_never_import_training(path):
    assert not {name for name in imports(path) if name.lstrip(".") == "training"}


def test_importing_brings_no_hub():
    code = (
        "import sys, torch, numpy, PIL.Image, einops, scsnet.pipeline\n"
        "assert not {'huggingface_hub', 'requests'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
