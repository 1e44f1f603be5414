"""How long ComfyUI takes to stop a job of these nodes."""

import time

from PIL import Image
from prompts import Prompt


def job(checkpoint, strength):
    """A prompt that colorizes noise.png by reference, enlarges and draws attention."""
    p = Prompt()
    image, options = p.image("noise.png"), {"strength": strength, "working_size": 256}
    node = p.reference(p.load(checkpoint), image, p.image(), **options)
    p.preview(p.upscale(node, 3.0))
    p.viz(node.at(2), "0.2, 0.3; 0.7, 0.5", what="both")
    return p


def delays(server, checkpoint, moments, enough):
    """Seconds to stop at `moments` spread over a job; one above `enough` is tried up to three times, the least counts."""
    Image.effect_noise((440, 360), 60).save(server.base / "input" / "noise.png")
    server.run(job(checkpoint, 0.9))  # warm up
    start = time.monotonic()
    server.run(job(checkpoint, 0.91))
    whole, result = time.monotonic() - start, []
    for moment in range(1, moments + 1):
        tries = []
        while len(tries) < 3 and (not tries or tries[-1] >= enough):
            strength = 1 + moment / 20 + len(tries) / 200  # never from the cache
            prompt = server.queue(job(checkpoint, strength))
            time.sleep(whole * 0.9 * moment / (moments + 1))
            tries.append(server.interrupt(prompt))
        result.append(min(tries))
    return result
