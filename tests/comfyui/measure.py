"""The figures of README.md: `python tests/comfyui/measure.py [part ...]` (COMFYUI_PATH, COMFYUI_PYTHON)."""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from PIL import Image, ImageChops

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path += [str(HERE), str(ROOT)]

from prompts import LAKE, Prompt, delays  # noqa: E402
from server import Server, cached, messages  # noqa: E402

PHOTO = "scsnet_stall_1909.jpg"  # 480 x 365
SCALES = (1.37, 3.0)
MIB = 2**20


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


def enlarge_photo(server, size):
    """Write the photo at another size, with grain, to the host's folder of inputs; returns its name."""
    with Image.open(server.base / "input" / PHOTO) as photo:
        large = photo.convert("L").resize(size, Image.Resampling.BICUBIC)
    name = f"{size[0]}x{size[1]}.jpg"
    ImageChops.add(large, Image.effect_noise(size, 20), offset=-128).save(
        server.base / "input" / name
    )
    return name


def bundles(server):
    """What the bundles of a photo of 900 x 600 pixels hold, what the host counts of it, and what is left once it is freed."""
    photo = enlarge_photo(server, (900, 600))

    def run(strength, name=photo):
        p = Prompt()
        node = p.reference(p.load("bundled"), p.image(name), p.image(LAKE), strength=strength)
        p.preview(p.add("ImageCrop", image=node.at(1), x=0, y=0, width=100, height=100))
        p.preview(p.viz(node.at(2)))
        server.run(p, timeout=3600)
        tell(f"strength {strength} of {name}")

    def free():
        server.forget()
        time.sleep(30)  # the host collects its garbage later
        tell("freeing memory")

    def tell(what):
        held = server.get("/held_memory")
        parts = ", ".join(f"{name} {nbytes / MIB:.1f}" for name, nbytes in held.items())
        print(f"MiB after {what}: {server.memory():.0f} in use; {parts}", flush=True)

    run(0.8, PHOTO)
    free()
    run(0.9)
    if counted := server.post("/held_memory/release", {}):
        tell(f"the RAM cache has released what it counts as {counted / MIB:.1f} MiB")
        run(1.0)
    free()


def cpu_seconds(server):
    """CPU time that the host has taken since its start, which other work beside it hardly changes (Linux)."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(server, prompt, seconds):
    """Run a prompt -> (seconds, CPU seconds) of each node, and the longest time without a message of progress in each."""
    spent, waits, node = {}, {}, None
    started = heard = time.monotonic()
    cpu = cpu_seconds(server)
    for kind, data in server.watch(prompt, seconds):
        now = time.monotonic()
        if kind == "executing":
            if node:
                spent[node] = now - started, cpu_seconds(server) - cpu
            node, started, heard, cpu = data["node"], now, now, cpu_seconds(server)
        if kind == "progress":
            waits[node], heard = max(waits.get(node, 0), now - heard), now
    assert kind == "execution_success", kind
    return spent, waits


def large(server, dtype="auto"):
    """8000 x 6000 pixels: as they are, then a window of 1600 x 1200 of twice the size; then stopped at three moments."""
    photo = enlarge_photo(server, (8000, 6000))
    p = Prompt()
    node = p.auto(p.load("bundled", dtype=dtype), p.image(photo))
    p.preview(p.add("ImageCrop", image=node.at(1), x=4000, y=3000, width=400, height=300))
    window = {"window_x": 0.5, "window_y": 0.5, "window_width": 0.1, "window_height": 0.1}
    image = p.upscale(node, 2.0, **window)
    p.preview(image)
    before = server.memory()
    spent, waits = watch(server, p, 3600)
    for name, link in (("automatic", node), ("window", image)):
        seconds, cpu = spent[link.node]
        wait = waits[link.node]
        print(
            f"{name}: {seconds:.0f} s ({cpu:.0f} s of CPU), at most {wait:.1f} s without progress"
        )
    print(f"MiB: {before:.0f} before, at most {server.memory('VmHWM'):.0f}", flush=True)
    for moment in (0.02, 0.1, 0.25):
        p[node.node]["inputs"]["strength"] = 1 + moment
        prompt = server.queue(p)
        time.sleep(spent[node.node][0] * moment)
        print(f"stopped {1000 * server.interrupt(prompt):.0f} ms after the request", flush=True)


def stops(server):
    """How soon a job stops."""
    found = [1000 * delay for delay in delays(server, "bundled", 12, enough=60)]
    print(f"stopped after {median(found):.0f} ms (median), at most {max(found):.0f} ms")


def speed(server):
    """First runs and other scales, in both types."""
    for dtype in ("fp32", "bf16"):
        scales(server, dtype)


PARTS = {part.__name__: part for part in (speed, memory, stops, bundles, large)}


def main(names):
    """Each part on a host of its own."""
    if unknown := set(names) - set(PARTS):
        raise SystemExit(f"expected some of {', '.join(PARTS)}, got {', '.join(unknown)}")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder)
            shutil.copytree(ROOT / "web" / "samples", base / "input")
            packs = {"scsnet": ROOT, "held_memory.py": HERE / "held_memory.py"}
            with Server(base, packs) as server:
                version = server.get("/system_stats")["system"]["comfyui_version"]
                print(f"{name}, ComfyUI {version}", flush=True)
                PARTS[name](server)


if __name__ == "__main__":
    main(sys.argv[1:] or PARTS)
