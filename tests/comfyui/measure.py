"""The figures of README.md: `python tests/comfyui/measure.py` (COMFYUI_PATH, COMFYUI_PYTHON)."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path += [str(HERE), str(ROOT)]

from interruption import delays  # noqa: E402
from prompts import LAKE, Prompt  # noqa: E402
from server import Server, cached, messages  # noqa: E402

PHOTO = "scsnet_stall_1909.jpg"  # 480 x 365
SCALES = (1.37, 3.0)


def seconds(history):
    """From the start of a prompt's execution to its end."""
    times = messages(history)
    start, end = (times[f"execution_{kind}"]["timestamp"] for kind in ("start", "success"))
    return (end - start) / 1000


def scales(server, dtype):
    """A first run, then another scale with the features cached."""
    p = Prompt()
    node = p.reference(p.load("bundled", dtype=dtype), p.image(PHOTO), p.image(LAKE))
    image = p.upscale(node)
    p.preview(image)
    spent = {scale: [] for scale in SCALES}
    for attempt in range(4):
        for number, scale in enumerate(SCALES):
            p[image.node]["inputs"]["scale"] = scale
            p[node.node]["inputs"]["strength"] = 1 + (attempt * len(SCALES) + number) / 100
            whole = server.wait(server.queue(p))
            p[image.node]["inputs"]["scale"] = scale + 0.01
            again = server.wait(server.queue(p))
            assert node.node not in cached(whole)
            assert node.node in cached(again)
            assert image.node not in cached(again)
            if attempt:  # the first also loads and warms up
                spent[scale].append((seconds(whole), seconds(again)))
    for scale, times in spent.items():
        first, second = (median(column) for column in zip(*times, strict=True))
        print(f"{dtype}, scale {scale}: {first:.2f} s, another scale {second:.2f} s")


def memory(server):
    """After each of ten runs that share nothing."""
    used = []
    for run in range(10):
        p = Prompt()
        node = p.reference(
            p.load("bundled"), p.image(PHOTO), p.image(LAKE), strength=0.5 + run / 100
        )
        p.preview(p.upscale(node))
        server.run(p)
        used.append(server.memory())
    print("MiB in use after each run:", " ".join(f"{mib:.0f}" for mib in used))


def main():
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        shutil.copytree(ROOT / "web" / "samples", base / "input")
        with Server(base, {"scsnet": ROOT}) as server:
            print("ComfyUI", server.get("/system_stats")["system"]["comfyui_version"])
            for dtype in ("fp32", "bf16"):
                scales(server, dtype)
            memory(server)
            found = [1000 * delay for delay in delays(server, "bundled", 12, enough=60)]
            print(f"stopped after {median(found):.0f} ms (median), at most {max(found):.0f} ms")


if __name__ == "__main__":
    main()
