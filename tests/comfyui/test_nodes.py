"""The nodes on a real ComfyUI over HTTP: results, caches, number types, interruption."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import random_weights
from interruption import delays
from PIL import Image
from prompts import ALPS, TINY, Prompt, chain, pictures, shown
from server import cached

from scsnet import SCSNetConfig


def luminance(picture: np.ndarray) -> np.ndarray:
    linear = np.where(picture > 0.04045, ((picture + 0.055) / 1.055) ** 2.4, picture / 12.92)
    return linear[..., :3] @ [0.2126, 0.7152, 0.0722]


def test_colorize_and_enlarge(comfy):
    p, large, same = chain(2.37)
    outputs = comfy.run(p)
    assert pictures(comfy, outputs, large)[0].shape == (683, 853, 3)
    (picture,) = pictures(comfy, outputs, same)
    source = np.asarray(Image.open(comfy.base / "input" / ALPS)) / 255
    assert picture.shape == source.shape
    assert np.abs(luminance(picture) - luminance(source)).mean() < 0.02


def test_changing_scale_or_strength_runs_the_head_only(comfy):
    p, large, _ = chain(1.2)
    comfy.run(p)
    nodes = {node["class_type"]: name for name, node in p.items()}
    p[nodes["SCSContinuousUpscale"]]["inputs"] |= {"scale": 1.9, "strength": 0.5}
    history = comfy.wait(comfy.queue(p))
    assert {nodes["LoadSCSNet"], nodes["SCSColorizeAuto"]} <= cached(history)
    assert nodes["SCSContinuousUpscale"] not in cached(history)
    assert pictures(comfy, history["outputs"], large)[0].shape == (547, 684, 3)


def test_reference_attention_and_hand_over(comfy):
    p = Prompt()
    model, image = p.load(TINY), p.image(ALPS)
    references = (
        p.add("ImageBatch", image1=p.image("scsnet_lake.jpg"), image2=p.image("scsnet_autumn.jpg")),
        0,
    )
    node = p.reference(model, image, references)
    viz = p.viz((node, 2), "0.2, 0.2; 0.6, 0.8", what="both")
    mask = p.preview((p.add("MaskToImage", mask=(viz, 2)), 0))
    figure, heat, large = (
        p.preview((viz, 0)),
        p.preview((viz, 1)),
        p.preview(p.upscale((node, 0), 0.5)),
    )
    outputs = comfy.run(p)
    assert len(pictures(comfy, outputs, heat)) == len(pictures(comfy, outputs, mask)) == 2
    assert pictures(comfy, outputs, figure)[0].shape[0] > 600
    assert pictures(comfy, outputs, large)[0].shape == (144, 180, 3)
    assert outputs[viz]["scsnet_source"][0]["type"] == "temp"
    assert comfy.view(outputs[viz]["scsnet_source"][0])[:4] == b"\x89PNG"


def test_one_reference_per_picture(comfy):
    p = Prompt()
    two = (p.add("RepeatImageBatch", image=p.image(ALPS), amount=2), 0)
    near = (
        p.add("ImageBatch", image1=p.image("scsnet_lake.jpg"), image2=p.image("scsnet_autumn.jpg")),
        0,
    )
    node = p.reference(p.load(TINY), two, near, reference_batch="one per picture")
    first, second = shown(comfy, p, (node, 1))
    assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_on_request(comfy, dtype):
    p = Prompt()
    image = p.image(ALPS)
    nodes = [p.auto(p.load(TINY, dtype=name), image) for name in ("fp32", dtype)]
    whole, half = shown(comfy, p, *(p.upscale((node, 0), 0.7) for node in nodes))
    assert 0 < np.abs(whole - half).mean() < 0.01


@pytest.fixture(scope="session")
def full(comfy) -> str:
    """Weights of the real size."""
    path = comfy.base / "models" / "scsnet" / "full.safetensors"
    random_weights(path, SCSNetConfig())
    return path.name


def test_interruption_within_a_second(comfy, full):
    """At any moment. Other load may delay one stop; a single long operation delays all three attempts."""
    seconds = delays(comfy, full, moments=8, enough=0.5)
    assert max(seconds) < 1, seconds
