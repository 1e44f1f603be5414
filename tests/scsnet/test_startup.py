"""Modules that importing and loading bring in, and files that are read."""

import subprocess
import sys

import pytest

# Each takes longer to import than all of ours; torch brings some of them when it compiles.
HEAVY = {
    "huggingface_hub", "requests", "httpx", "scipy", "skimage", "matplotlib", "pandas", "torchvision",
    "triton", "sympy", "torch._dynamo", "torch._inductor", "torch.distributed", "multiprocessing.pool", "accelerate",
}  # fmt: skip
PACKAGE = "import scsnet.checkpoint, scsnet.device, scsnet.pictures, scsnet.pipeline"
# Into a running host, where torch and the host's own modules are loaded already.
NODES = """
import tempfile, host_doubles
host = host_doubles.Host(tempfile.mkdtemp())
known |= set(sys.modules)
with host_doubles.pack(host):
    found = {name for name in sys.modules if not name.startswith("comfy")}
"""
LOADING = """
from scsnet import checkpoint
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
checkpoint.load("bundled", dtype=torch.float32)
assert opened.count(str(checkpoint.BUNDLED)) == 1, opened  # read once
"""


@pytest.mark.parametrize("code", [PACKAGE, NODES, LOADING], ids=["package", "nodes", "loading"])
def test_imports_nothing_that_takes_long(root, code):
    program = f"""
import sys
sys.path[:0] = {[str(root), str(root / "tests" / "support")]!r}
import einops, numpy, torch, torch.nn.functional, PIL.Image, PIL.ImageCms, PIL.ImageOps
known, found = set(sys.modules), sys.modules
{code}
print(*sorted(set(found) - known))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules = done.stdout.strip().splitlines()[-1].split()
    assert not [m for m in modules if any(m == h or m.startswith(h + ".") for h in HEAVY)]
