"""Imports that import-linter does not see: of the host, relative ones out of a package, what a registry flags."""

import ast

import pytest

HOST = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "nodes", "server", "execution"}
# The registry's scan has flagged these in other packs, however harmless.
FLAGGED = {"subprocess", "urllib", "requests", "socket", "pickle", "ctypes", "marshal"}
FLAGGED_NAMES = {"eval", "exec", "os.environ", "torch.load"}


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("scsnet", HOST | FLAGGED | {"training", "scsnet"}),  # has another name inside of ComfyUI
        ("nodes", FLAGGED | {"training"}),
        ("training", HOST),
    ],
)
def test_imports_stay_within_the_layers(root, folder, forbidden):
    paths = list((root / folder).rglob("*.py"))
    assert paths
    for path in paths:
        depth = len(path.relative_to(root / folder).parts)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
                assert node.level <= depth or folder == "nodes", path
            assert not {name.split(".")[0] for name in names} & forbidden, (path, names)


def test_shipped_code_uses_nothing_that_a_registry_flags(root):
    for path in [root / "__init__.py", *root.glob("nodes/**/*.py"), *root.glob("scsnet/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.Name, ast.Attribute)):
                assert ast.unparse(node) not in FLAGGED_NAMES, path
