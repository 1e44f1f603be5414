"""The nodes among the host's own on a real ComfyUI over HTTP: other sizes, batches, lists, masks, transparency."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from prompts import ALPS, AUTUMN, LAKE, Prompt, pictures, shown
from websockets.sync.client import connect


def test_transparent_pictures_keep_their_alpha(comfy):
    alpha = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (48, 1))
    rgb = np.asarray(Image.open(comfy.base / "input" / ALPS).resize((64, 48)))
    Image.fromarray(np.dstack([rgb, alpha])).save(comfy.base / "input" / "rgba.png")
    p = Prompt()
    image = p.image("rgba.png")
    node = p.auto(p.load(), p.add("JoinImageWithAlpha", image=image, alpha=image.at(1)))
    same, large = shown(comfy, p, node.at(1), p.upscale(node, 2.0))
    assert same.shape == (48, 64, 4)
    assert np.abs(same[..., 3] - alpha / 255).max() < 0.01
    assert large.shape == (96, 128, 4)
    assert np.abs(large[::2, ::2, 3] - alpha / 255).max() < 0.05


def test_the_hosts_own_nodes_before_and_after(comfy):
    p = Prompt()
    small = p.scaled(p.image(), 77, 51)
    image = p.upscale(p.auto(p.load(), small), 1.5, luminance_image=small)
    red = p.add("MaskToImage", mask=p.add("ImageToMask", image=image, channel="red"))
    inverted, mask = shown(comfy, p, p.add("ImageInvert", image=image), red)
    assert inverted.shape == mask.shape == (76, 116, 3)


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


def test_the_progress_of_48_frames(comfy):
    p = Prompt()
    node = p.auto(p.load(), p.repeat(p.scaled(p.image(), 48, 32), 48))
    preview, values = p.preview(p.upscale(node, 1.5)), []
    with connect(f"ws://127.0.0.1:{comfy.port}/ws?clientId=watcher", proxy=None) as events:
        prompt_id, kind = comfy.queue(p, "watcher"), None
        while kind not in ("execution_success", "execution_error"):
            message = events.recv(timeout=60)
            if isinstance(message, bytes):  # a preview
                continue
            kind, data = (json.loads(message)[key] for key in ("type", "data"))
            if kind == "progress" and data["node"] == node.node:
                values.append(data["value"] / data["max"])
    assert len(pictures(comfy, comfy.wait(prompt_id)["outputs"], preview)) == 48
    assert values == sorted(values)
    assert values[-1] == 1
    assert len(values) >= 3  # newer hosts send one message per 0.1 s at most


def test_48_frames_with_a_reference_each(comfy):
    """Every frame takes its own: the second half, with other references, comes out otherwise."""
    p = Prompt()
    frame, first, second = (p.scaled(p.image(name), 48, 32) for name in (ALPS, LAKE, AUTUMN))
    near = p.batch(p.repeat(first, 24), p.repeat(second, 24))
    node = p.reference(p.load(), p.repeat(frame, 48), near, reference_batch="one per picture")
    results = shown(comfy, p, node.at(1))
    assert len(results) == 48
    assert all((picture == results[0]).all() for picture in results[:24])
    assert all((picture == results[24]).all() for picture in results[24:])
    assert np.abs(results[0] - results[24]).max() > 0.01


def test_two_sizes_and_a_mask_in_one_batch(comfy):
    """ImageBatch brings the second picture to the size of the first."""
    name = "scsnet_woman_1903.jpg"
    p = Prompt()
    mask = p.add("LoadImageMask", image=LAKE, channel="red")
    two = p.batch(p.image(name), p.add("MaskToImage", mask=mask))
    first, second = shown(comfy, p, p.upscale(p.auto(p.load(), two), 0.5))
    with Image.open(comfy.base / "input" / name) as picture:
        width, height = picture.size
    assert first.shape == second.shape == (round(height / 2), round(width / 2), 3)
    assert (first != second).any()


def test_lists_of_pictures_with_lists_of_references(comfy):
    """RebatchImages gives a list: ComfyUI runs the nodes once per pair of items."""
    p = Prompt()
    frames = p.repeat(p.scaled(p.image(), 40, 32), 5)
    references = p.batch(p.image(LAKE), p.image(AUTUMN))
    lists = [
        p.add("RebatchImages", images=images, batch_size=size)
        for images, size in ((frames, 3), (references, 1))
    ]
    node = p.reference(p.load(), *lists)
    results = shown(comfy, p, node.at(1), p.upscale(node), p.viz(node.at(2)).at(1))
    assert len(results) == 15  # a map for every picture
    assert [picture.shape for picture in results[:10]] == [(32, 40, 3)] * 5 + [(64, 80, 3)] * 5
    assert (results[0] == results[2]).all()
    assert (results[0] != results[3]).any()


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


def test_black_and_white_stay_so(comfy):
    p = Prompt()
    size = {"width": 50, "height": 30, "batch_size": 1}
    plain = [p.add("EmptyImage", color=color, **size) for color in (0, 0xFFFFFF)]
    model = p.load()
    black, white = shown(comfy, p, *(p.auto(model, image, strength=0.0).at(1) for image in plain))
    assert black.max() < 0.005
    assert white.min() > 0.995


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
