"""Modules that importing and loading bring in, and files that are read."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Each takes longer to import than all of ours; torch brings some of them when it compiles.
HEAVY = {
    "huggingface_hub", "requests", "httpx", "scipy", "skimage", "matplotlib", "pandas", "torchvision",
    "triton", "sympy", "torch._dynamo", "torch._inductor", "torch.distributed", "multiprocessing.pool", "accelerate",
}  # fmt: skip
BEFORE = """
import sys
import einops, numpy, torch, torch.nn.functional, PIL.Image, PIL.ImageCms, PIL.ImageOps
known = set(sys.modules)
"""
AFTER = """
print(*sorted(globals().get("inside", set(sys.modules)) - known))
"""


def list_imports(code, *path):
    """Modules that the code imports, in a process of its own."""
    before = f"import sys; sys.path[:0] = {[str(ROOT), *path]!r}\n{BEFORE}"
    done = subprocess.run(
        [sys.executable, "-c", before + code + AFTER],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1].split()


def heavy(modules):
    return [m for m in modules if any(m == h or m.startswith(h + ".") for h in HEAVY)]


def test_importing_everything_of_the_package():
    code = "import scsnet.checkpoint, scsnet.device, scsnet.pictures, scsnet.pipeline\n"
    modules = list_imports(code)
    assert heavy(modules) == []


def test_importing_the_nodes():
    """Import into a running host, where torch and the host's own modules are loaded already."""
    code = """
import tempfile, host_doubles
host = host_doubles.Host(tempfile.mkdtemp())
known |= set(sys.modules)
with host_doubles.pack(host) as module:
    inside = set(sys.modules) - {n for n in sys.modules if n.startswith("comfy")}
"""
    modules = list_imports(code, str(ROOT / "tests" / "support"))
    assert heavy(modules) == []


def test_loading_reads_the_file_once_and_compiles_nothing():
    code = """
from scsnet import checkpoint
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
checkpoint.load("bundled", dtype=torch.float32)
assert opened.count(str(checkpoint.BUNDLED)) == 1, opened
"""
    modules = list_imports(code)
    assert heavy(modules) == []
