"""How long ComfyUI takes to stop a job of these nodes, asked at any of its moments."""

from __future__ import annotations

import time

from PIL import Image
from prompts import Prompt
from server import Server

REFERENCE = "scsnet_alps.jpg"


def job(checkpoint: str, strength: float) -> Prompt:
    """References, colours, texture, the picture itself, enlarging it, drawing attention. Needs `prepare`."""
    p = Prompt()
    image, options = p.image("noise.png"), {"strength": strength, "working_size": 256}
    node = p.reference(p.load(checkpoint), image, p.image(REFERENCE), **options)
    p.preview(p.upscale((node, 0), 3.0))
    p.viz((node, 1), "0.2, 0.3; 0.7, 0.5", what="both")
    return p


def prepare(server: Server, checkpoint: str) -> float:
    """Seconds that an uninterrupted job takes."""
    Image.effect_noise((440, 360), 60).save(server.base / "input" / "noise.png")
    server.run(job(checkpoint, 0.9))  # what is done once is not measured
    start = time.monotonic()
    server.run(job(checkpoint, 0.91))
    return time.monotonic() - start


def delay(server: Server, prompt: Prompt, seconds: float) -> float:
    """Seconds from asking to the end of a prompt that has run for `seconds`, by the clock that both share."""
    prompt_id = server.queue(prompt)
    time.sleep(seconds)
    asked = time.time()
    server.post("/interrupt", {})
    kind, data = server.wait(prompt_id)["status"]["messages"][-1]
    assert kind == "execution_interrupted", f"it was over within {seconds:.1f} s"
    return data["timestamp"] / 1000 - asked


def delays(server: Server, checkpoint: str, moments: int, enough: float) -> list[float]:
    """The delays at `moments` that divide a job evenly; one longer than `enough` is tried again, twice at most."""
    whole, found = prepare(server, checkpoint), []
    for moment in range(1, moments + 1):
        tries: list[float] = []
        while len(tries) < 3 and (not tries or tries[-1] >= enough):
            strength = 1 + moment / 20 + len(tries) / 200  # never from the cache
            seconds = whole * 0.9 * moment / (moments + 1)
            tries.append(delay(server, job(checkpoint, strength), seconds))
        found.append(min(tries))
    return found
