"""How long ComfyUI takes to stop a job of these nodes."""

from __future__ import annotations

import time

from PIL import Image
from prompts import Prompt
from server import Server

REFERENCE = "scsnet_alps.jpg"


def job(checkpoint: str, strength: float) -> Prompt:
    """A prompt that colorizes by reference, enlarges and draws attention. Needs `prepare`."""
    p = Prompt()
    image, options = p.image("noise.png"), {"strength": strength, "working_size": 256}
    node = p.reference(p.load(checkpoint), image, p.image(REFERENCE), **options)
    p.preview(p.upscale((node, 0), 3.0))
    p.viz((node, 2), "0.2, 0.3; 0.7, 0.5", what="both")
    return p


def prepare(server: Server, checkpoint: str) -> float:
    """Run a job once to warm up, and again; returns the seconds of the second run."""
    Image.effect_noise((440, 360), 60).save(server.base / "input" / "noise.png")
    server.run(job(checkpoint, 0.9))
    start = time.monotonic()
    server.run(job(checkpoint, 0.91))
    return time.monotonic() - start


def delay(server: Server, prompt: Prompt, seconds: float) -> float:
    """Interrupt a prompt after `seconds`; returns the seconds from the request to its end."""
    prompt_id = server.queue(prompt)
    time.sleep(seconds)
    requested = time.time()
    server.post("/interrupt", {})
    kind, data = server.wait(prompt_id)["status"]["messages"][-1]
    assert kind == "execution_interrupted", f"it was over within {seconds:.1f} s"
    return data["timestamp"] / 1000 - requested


def delays(server: Server, checkpoint: str, moments: int, enough: float) -> list[float]:
    """Measure the delay at `moments` spread over a job; one above `enough` is measured up to three times, least counts."""
    whole, result = prepare(server, checkpoint), []
    for moment in range(1, moments + 1):
        tries: list[float] = []
        while len(tries) < 3 and (not tries or tries[-1] >= enough):
            strength = 1 + moment / 20 + len(tries) / 200  # never from the cache
            seconds = whole * 0.9 * moment / (moments + 1)
            tries.append(delay(server, job(checkpoint, strength), seconds))
        result.append(min(tries))
    return result
