"""The figures of README.md: `python tests/comfyui/measure.py` (COMFYUI_PATH, COMFYUI_PYTHON; a minute or two)."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path += [str(HERE), str(ROOT)]

from interruption import delays  # noqa: E402
from prompts import Prompt  # noqa: E402
from server import Server, cached  # noqa: E402

PHOTO, REFERENCE = "scsnet_stall_1909.jpg", "scsnet_lake.jpg"  # 480 x 365, 360 x 288
SCALES = (1.37, 3.0)


def seconds(history: dict[str, Any]) -> float:
    """From the start of a prompt's execution to its end."""
    times = {kind: data["timestamp"] for kind, data in history["status"]["messages"]}
    return (times["execution_success"] - times["execution_start"]) / 1000


def scales(server: Server, dtype: str) -> None:
    """A first run, then another scale with the features cached."""
    p = Prompt()
    node = p.reference(p.load("bundled", dtype=dtype), p.image(PHOTO), p.image(REFERENCE))
    image, _ = p.upscale((node, 0))
    p.preview((image, 0))
    spent: dict[float, list[tuple[float, float]]] = {scale: [] for scale in SCALES}
    for attempt in range(4):
        for number, scale in enumerate(SCALES):
            p[image]["inputs"]["scale"] = scale
            p[node]["inputs"]["strength"] = 1 + (attempt * len(SCALES) + number) / 100
            whole = server.wait(server.queue(p))
            p[image]["inputs"]["scale"] = scale + 0.01
            again = server.wait(server.queue(p))
            assert node not in cached(whole)
            assert node in cached(again)
            assert image not in cached(again)
            if attempt:  # the first also loads and warms up
                spent[scale].append((seconds(whole), seconds(again)))
    for scale, times in spent.items():
        first, second = (median(column) for column in zip(*times, strict=True))
        print(f"{dtype}, scale {scale}: {first:.2f} s, another scale {second:.2f} s")


def memory(server: Server) -> None:
    """After each of ten runs that share nothing."""
    used = []
    for run in range(10):
        p = Prompt()
        strength = 0.5 + run / 100
        node = p.reference(p.load("bundled"), p.image(PHOTO), p.image(REFERENCE), strength=strength)
        p.preview(p.upscale((node, 0), 2.0))
        server.run(p)
        used.append(server.resident())
    print("MiB in use after each run:", " ".join(f"{mib:.0f}" for mib in used))


def main() -> None:
    """All of them."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        shutil.copytree(ROOT / "web" / "samples", base / "input")
        with Server(base, {"scsnet": ROOT}) as server:
            print("ComfyUI", server.get("/system_stats")["system"]["comfyui_version"])
            for dtype in ("fp32", "bf16"):
                scales(server, dtype)
            memory(server)
            found = sorted(delays(server, "bundled", 12, enough=60))
            print(
                f"stopped after {1000 * median(found):.0f} ms (median of {len(found)} moments), "
                f"at most {1000 * found[-1]:.0f} ms"
            )


if __name__ == "__main__":
    main()
