"""Start-up: what importing and loading bring in and read; seconds only with much room."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Each takes longer to import than all of ours; torch brings some of them when it compiles.
HEAVY = {
    "huggingface_hub", "requests", "httpx", "safetensors", "scipy", "skimage", "matplotlib", "pandas", "torchvision",
    "triton", "sympy", "torch._dynamo", "torch._inductor", "torch.distributed", "multiprocessing.pool", "accelerate",
}  # fmt: skip
BEFORE = """
import sys, time
import einops, numpy, torch, torch.nn.functional, PIL.Image, PIL.ImageCms, PIL.ImageOps
known, start = set(sys.modules), time.perf_counter()
"""
AFTER = """
took = time.perf_counter() - start
print(round(took, 3), *sorted(globals().get("inside", set(sys.modules)) - known))
"""


def brought(code, *path):
    """Seconds, and the modules that the code imported, in a process of its own."""
    before = f"import sys; sys.path[:0] = {[str(ROOT), *path]!r}\n{BEFORE}"
    done = subprocess.run(
        [sys.executable, "-c", before + code + AFTER],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seconds, *modules = done.stdout.strip().splitlines()[-1].split()
    return float(seconds), modules


def heavy(modules):
    return [m for m in modules if any(m == h or m.startswith(h + ".") for h in HEAVY)]


def test_importing_everything_of_the_package():
    code = "import scsnet.checkpoint, scsnet.device, scsnet.pictures, scsnet.pipeline\n"
    seconds, modules = min(brought(code) for _ in range(2))
    assert heavy(modules) == []
    assert len(modules) < 120, modules
    assert seconds < 2  # a twentieth of a second on an idle machine


def test_importing_the_nodes():
    """Into a host that is running: torch and the host's own modules are there already."""
    code = """
import tempfile, host_doubles
host = host_doubles.Host(tempfile.mkdtemp())
known |= set(sys.modules)
start = time.perf_counter()
with host_doubles.pack(host) as module:
    inside = set(sys.modules) - {n for n in sys.modules if n.startswith("comfy")}
"""
    seconds, modules = min(brought(code, str(ROOT / "tests" / "support")) for _ in range(2))
    assert heavy(modules) == []
    assert len(modules) < 150, modules
    assert seconds < 2


def test_loading_reads_the_file_once_and_compiles_nothing():
    code = """
from scsnet import checkpoint
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
start = time.perf_counter()
checkpoint.load("bundled", dtype=torch.float32)
assert opened.count(str(checkpoint.BUNDLED)) == 1, opened
"""
    seconds, modules = min(brought(code) for _ in range(2))
    assert heavy(modules) == []
    assert seconds < 10  # a fifth of a second on an idle machine
