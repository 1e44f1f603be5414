"""Prompts in API form, built node by node; their pictures, and how long ComfyUI takes to stop them."""

import time
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

TINY = "tiny.safetensors"  # random weights of a tiny network; conftest.py writes them
ALPS, LAKE, AUTUMN = "scsnet_alps.jpg", "scsnet_lake.jpg", "scsnet_autumn.jpg"  # each 360 x 288


class Link(NamedTuple):
    """An output of a node, which other nodes take as an input."""

    node: str
    output: int = 0

    def at(self, output):
        """Another output of the same node."""
        return Link(self.node, output)


class Prompt(dict):
    """{id: {class_type, inputs}}. Every method adds a node and returns its first output."""

    def add(self, kind, **inputs):
        node = str(len(self) + 1)
        self[node] = {"class_type": kind, "inputs": inputs}
        return Link(node)

    def load(self, checkpoint=TINY, **inputs):
        return self.add("LoadSCSNet", checkpoint=checkpoint, **inputs)

    def image(self, name=ALPS):
        return self.add("LoadImage", image=name)

    def scaled(self, image, width, height, upscale_method="area", crop="center"):
        size = {"width": width, "height": height}
        return self.add("ImageScale", image=image, upscale_method=upscale_method, crop=crop, **size)

    def repeat(self, image, amount):
        return self.add("RepeatImageBatch", image=image, amount=amount)

    def auto(self, model, image, **inputs):
        return self.add("SCSColorizeAuto", model=model, image=image, **inputs)

    def reference(self, model, image, reference, **inputs):
        inputs = {"model": model, "image": image, "reference": reference, **inputs}
        return self.add("SCSColorizeReference", **inputs)

    def upscale(self, lab, scale=2.0, **inputs):
        return self.add(
            "SCSContinuousUpscale", **{"lab": lab, "size_by": "scale", "scale": scale, **inputs}
        )

    def viz(self, attention, points="0.5, 0.5", **inputs):
        inputs = {"level": "all", "what": "attention", **inputs}
        return self.add("AttentionMapViz", attention=attention, points=points, **inputs)

    def preview(self, image):
        return self.add("PreviewImage", images=image)


def pictures(server, outputs, preview):
    """What a preview node shows, each (H, W, C) float 0..1."""
    files = outputs[preview.node]["images"]
    return [np.asarray(Image.open(BytesIO(server.view(file)))) / 255 for file in files]


def shown(server, prompt, *images):
    """Run the prompt; return the pictures of these outputs, one after another."""
    previews = [prompt.preview(image) for image in images]
    outputs = server.run(prompt)
    return [picture for preview in previews for picture in pictures(server, outputs, preview)]


def chain(scale=1.5):
    """Load, colorize, enlarge; returns the prompt, the colorizing node, the enlarging node and its preview."""
    p = Prompt()
    node = p.auto(p.load(), p.image())
    large = p.upscale(node, scale)
    return p, node, large, p.preview(large)


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
    runs = []
    for strength in (0.91, 0.92):
        start = time.monotonic()
        server.run(job(checkpoint, strength))
        runs.append(time.monotonic() - start)
    whole, result = min(runs), []  # the shorter, so that no job ends before it is interrupted
    for moment in range(1, moments + 1):
        tries = []
        while len(tries) < 3 and (not tries or tries[-1] >= enough):
            strength = 1 + moment / 20 + len(tries) / 200  # never from the cache
            prompt = server.queue(job(checkpoint, strength))
            time.sleep(whole * 0.9 * moment / (moments + 1))
            tries.append(server.interrupt(prompt))
        result.append(min(tries))
    return result
