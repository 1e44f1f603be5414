"""The nodes on a real ComfyUI over HTTP: results, caches, number types, hints, interruption."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import random_weights
from interruption import delays
from PIL import Image
from prompts import ALPS, AUTUMN, LAKE, Prompt, chain, pictures, shown
from server import cached

from scsnet import SCSNetConfig


def luminance(picture):
    linear = np.where(picture > 0.04045, ((picture + 0.055) / 1.055) ** 2.4, picture / 12.92)
    return linear[..., :3] @ [0.2126, 0.7152, 0.0722]


def test_colorizing_keeps_size_and_luminance_and_enlarging_takes_any_scale(comfy):
    p, node, large, _ = chain(2.37)
    large, same = shown(comfy, p, large, node.at(1))
    assert large.shape == (683, 853, 3)
    source = np.asarray(Image.open(comfy.base / "input" / ALPS)) / 255
    assert same.shape == source.shape
    assert np.abs(luminance(same) - luminance(source)).mean() < 0.02


def test_another_scale_or_strength_colorizes_nothing_again(comfy):
    p, node, large, preview = chain(0.1)
    comfy.run(p)
    for scale, strength in [(0.5, 1.0), (1.37, 0.5), (3.2, 0.5)]:
        p[large.node]["inputs"] |= {"scale": scale, "strength": strength}
        history = comfy.wait(comfy.queue(p))
        assert {"1", "2", node.node} <= cached(history)
        assert large.node not in cached(history)
        (picture,) = pictures(comfy, history["outputs"], preview)
        assert picture.shape == (round(288 * scale), round(360 * scale), 3)


def test_several_references_and_their_attention(comfy):
    p = Prompt()
    references = p.batch(p.image(LAKE), p.image(AUTUMN))
    node = p.reference(p.load(), p.image(), references)
    viz = p.viz(node.at(2), "0.2, 0.2; 0.6, 0.8", what="both")
    mask = p.preview(p.add("MaskToImage", mask=viz.at(2)))
    figure, heat, large = (p.preview(i) for i in (viz, viz.at(1), p.upscale(node, 0.5)))
    outputs = comfy.run(p)
    assert len(pictures(comfy, outputs, heat)) == len(pictures(comfy, outputs, mask)) == 2
    assert pictures(comfy, outputs, figure)[0].shape[0] > 600
    assert pictures(comfy, outputs, large)[0].shape == (144, 180, 3)
    (source,) = outputs[viz.node]["scsnet_source"]
    assert source["type"] == "temp"
    assert comfy.view(source)[:4] == b"\x89PNG"


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_on_request(comfy, dtype):
    p = Prompt()
    nodes = [p.auto(p.load(dtype=name), p.image()) for name in ("fp32", dtype)]
    whole, half = shown(comfy, p, *(p.upscale(node, 0.7) for node in nodes))
    assert 0 < np.abs(whole - half).mean() < 0.01


def test_hints_and_a_mask_colour_what_they_mark(comfy):
    """A hint without and with another reference, and a mask with its colour; the reference is what SCSColorHints paints."""
    p = Prompt()
    gray, model = p.image(), p.load("bundled")
    sky = p.add("SCSColorHints", image=gray, hints="0.5, 0.1 #ff2020 0.05")
    mask = p.add("SolidMask", value=1.0, width=360, height=288)
    more = {"mask": mask, "mask_color": "#2020ff", "references": p.image(LAKE)}
    blue = p.add("SCSColorHints", image=gray, hints="", **more)
    results = [
        p.reference(model, gray, hint, reference_mask=hint.at(1), strength=1.5).at(1)
        for hint in (sky, blue)
    ]
    marked = p.add("MaskToImage", mask=sky.at(1))
    red, blue_, painted, where, *both = shown(comfy, p, *results, sky, marked, blue)
    assert len(both) == 2
    assert 0.001 < where.mean() < 0.1
    spot = painted[np.broadcast_to(where > 0.99, painted.shape)].reshape(-1, 3).mean(0)
    assert spot[0] > spot[1] + 0.2
    tint = red[:60].mean((0, 1)) - blue_[:60].mean((0, 1))
    assert tint[0] > tint[2] + 0.02, tint


@pytest.fixture(scope="session")
def full(comfy):
    """Random weights of the real size."""
    path = comfy.base / "models" / "scsnet" / "full.safetensors"
    random_weights(path, SCSNetConfig())
    return path.name


def test_interruption_within_a_second(comfy, full):
    """At any moment. Other load may delay one stop; a single long operation delays all three attempts."""
    seconds = delays(comfy, full, moments=8, enough=0.5)
    assert max(seconds) < 1, seconds
