"""The nodes on a real ComfyUI over HTTP: results, caches, number types, interruption."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import random_weights
from interruption import delays
from PIL import Image
from prompts import ALPS, Prompt, chain, pictures, shown
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


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_on_request(comfy, dtype):
    p = Prompt()
    nodes = [p.auto(p.load(dtype=name), p.image()) for name in ("fp32", dtype)]
    whole, half = shown(comfy, p, *(p.upscale(node, 0.7) for node in nodes))
    assert 0 < np.abs(whole - half).mean() < 0.01


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
