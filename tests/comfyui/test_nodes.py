"""The nodes, also among the host's own, on a real ComfyUI over HTTP: results, caches, batches, sizes, interruption."""

import numpy as np
import pytest
from conftest import random_weights
from PIL import Image
from prompts import ALPS, AUTUMN, LAKE, Prompt, chain, delays, pictures, shown
from server import cached
from skimage.color import rgb2xyz

from scsnet import SCSNetConfig


def test_colorizing_keeps_size_and_luminance_and_enlarging_takes_any_scale(comfy):
    p, node, large, _ = chain(2.37)
    large, same = shown(comfy, p, large, node.at(1))
    assert large.shape == (683, 853, 3)
    source = np.asarray(Image.open(comfy.base / "input" / ALPS)) / 255
    assert same.shape == source.shape
    assert np.abs(rgb2xyz(same) - rgb2xyz(source))[..., 1].mean() < 0.02  # the luminance


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


def test_masks_lead_and_follow(comfy):
    """Colour only where the attention lies: heat as a mask, composition, alpha taken apart again."""
    p = Prompt()
    gray = p.image()
    node = p.reference(p.load(), gray, p.image(LAKE))
    heat = p.viz(node.at(2), "0.5, 0.2").at(2)
    below = p.scaled(gray, 540, 432, upscale_method="bilinear", crop="disabled")
    mixed = p.add(
        "ImageCompositeMasked", destination=below, source=p.upscale(node, 1.5), x=0, y=0, resize_source=False, mask=heat
    )  # fmt: skip
    cut = p.add("JoinImageWithAlpha", image=mixed, alpha=p.add("InvertMask", mask=heat))
    apart = p.add("SplitImageWithAlpha", image=p.upscale(p.auto(p.load(), cut), 0.5))
    a, b, c = shown(comfy, p, mixed, apart, p.add("MaskToImage", mask=apart.at(1)))
    assert a.shape == (432, 540, 3)
    assert b.shape == c.shape == (216, 270, 3)
    assert c.std() > 0.01


def test_48_frames_with_a_reference_each_and_their_progress(comfy):
    """Every frame takes its own: the second half, with other references, comes out otherwise."""
    p = Prompt()
    frame, first, second = (p.scaled(p.image(name), 48, 32) for name in (ALPS, LAKE, AUTUMN))
    near = p.add("ImageBatch", image1=p.repeat(first, 24), image2=p.repeat(second, 24))
    node = p.reference(p.load(), p.repeat(frame, 48), near, reference_batch="one per picture")
    preview, values = p.preview(node.at(1)), []
    for kind, data in comfy.watch(p):
        if kind == "progress" and data["node"] == node.node:
            values.append(data["value"] / data["max"])
    results = pictures(comfy, comfy.wait(data["prompt_id"])["outputs"], preview)
    assert len(results) == 48
    assert all((picture == results[0]).all() for picture in results[:24])
    assert all((picture == results[24]).all() for picture in results[24:])
    assert np.abs(results[0] - results[24]).max() > 0.01
    assert values == sorted(values)
    assert values[-1] == 1
    assert len(values) >= 3  # newer hosts send one message per 0.1 s at most


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 40), (39, 2)])
def test_smallest_pictures(comfy, width, height):
    p = Prompt()
    small, near = (
        p.add("ImageCrop", image=p.image(), width=w, height=h, x=100, y=50)
        for w, h in ((width, height), (height, width))
    )
    node = p.reference(p.load(), small, near)
    figure = p.viz(node.at(2), "0, 0; 1, 1", what="both")
    same, large, figure = shown(comfy, p, node.at(1), p.upscale(node, 16.0), figure)
    assert same.shape == (height, width, 3)
    assert large.shape == (16 * height, 16 * width, 3)
    assert figure.std() > 0.01


def test_the_ends_of_every_number(comfy):
    p = Prompt()
    model, alps = p.load(), p.image()
    small = p.add("ImageCrop", image=alps, x=0, y=0, width=30, height=20)
    sizes = (4, 6, 99, 1024)
    nodes = [p.reference(model, alps, small, working_size=size, strength=3.0) for size in sizes]
    lab = p.auto(model, small)
    points = "\n".join(f"{k / 29:.3f}, {1 - k / 29:.3f}" for k in range(30))
    options = {"level": "D1", "what": "both", "color_map": "viridis", "overlay": 0.0}
    figure = p.viz(nodes[0].at(2), points, **options)
    window = {"window_x": 0.999, "window_y": 0.0, "window_width": 0.001, "window_height": 1.0}
    results = shown(
        comfy, p, *(node.at(1) for node in nodes), figure, p.upscale(lab, 0.1), p.upscale(lab, 16.0, **window),
        p.upscale(lab, size_by="width and height", width=7), p.upscale(lab, size_by="megapixels", megapixels=0.01),
        p.upscale(lab, 2.0, luminance_image=alps, keep_luminance=True, strength=3.0),
    )  # fmt: skip
    assert [r.shape[:2] for r in results[:4]] == [(288, 360)] * 4
    expected = [(2, 3), (320, 1), (5, 7), (82, 122), (40, 60)]
    assert [r.shape[:2] for r in results[5:]] == expected


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_on_request(comfy, dtype):
    p = Prompt()
    nodes = [p.auto(p.load(dtype=name), p.image()) for name in ("fp32", dtype)]
    whole, half = shown(comfy, p, *(p.upscale(node, 0.7) for node in nodes))
    assert 0 < np.abs(whole - half).mean() < 0.01


def test_interruption_within_a_second(comfy):
    """At any moment. Other load may delay one stop; a single long operation delays all three attempts."""
    weights = comfy.base / "models" / "scsnet" / "full.safetensors"
    random_weights(weights, SCSNetConfig())
    seconds = delays(comfy, weights.name, moments=8, enough=0.5)
    assert max(seconds) < 1, seconds
