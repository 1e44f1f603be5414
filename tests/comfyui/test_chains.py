"""The nodes among the host's own on a real ComfyUI over HTTP: other sizes, batches, lists, masks, transparency."""

from __future__ import annotations

import numpy as np
import pytest
from events import Events
from PIL import Image
from prompts import ALPS, TINY, Prompt, chain, pictures, shown
from server import cached


def test_transparent_pictures_keep_their_alpha(comfy):
    alpha = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (48, 1))
    rgb = np.asarray(Image.open(comfy.base / "input" / ALPS).resize((64, 48)))
    Image.fromarray(np.dstack([rgb, alpha])).save(comfy.base / "input" / "rgba.png")
    p = Prompt()
    image = p.image("rgba.png")
    joined = (p.add("JoinImageWithAlpha", image=image, alpha=(image[0], 1)), 0)
    node = p.auto(p.load(TINY), joined)
    same, large = shown(comfy, p, (node, 1), p.upscale((node, 0), 2.0))
    assert same.shape == (48, 64, 4)
    assert np.abs(same[..., 3] - alpha / 255).max() < 0.01
    assert large.shape == (96, 128, 4)
    assert np.abs(large[::2, ::2, 3] - alpha / 255).max() < 0.05


def test_the_hosts_own_nodes_before_and_after(comfy):
    p = Prompt()
    small = p.scaled(p.image(ALPS), 77, 51)
    node = p.auto(p.load(TINY), small)
    image = p.upscale((node, 0), 1.5, luminance_image=small)
    inverted = (p.add("ImageInvert", image=image), 0)
    mask = (p.add("ImageToMask", image=image, channel="red"), 0)
    (a, b) = shown(comfy, p, inverted, (p.add("MaskToImage", mask=mask), 0))
    assert a.shape == b.shape == (76, 116, 3)


def test_a_loop_over_scales(comfy):
    """One encoding, scale after scale, as users try them; then all of them in one graph."""
    p, large, _ = chain(0.1)
    nodes = {node["class_type"]: name for name, node in p.items()}
    comfy.run(p)
    scales = [0.5, 1.0, 1.37, 3.2]
    for scale in scales:
        p[nodes["SCSContinuousUpscale"]]["inputs"]["scale"] = scale
        history = comfy.wait(comfy.queue(p))
        assert nodes["SCSColorizeAuto"] in cached(history)
        height, width = round(288 * scale), round(360 * scale)
        assert pictures(comfy, history["outputs"], large)[0].shape == (height, width, 3)
    p = Prompt()
    node = p.auto(p.load(TINY), p.image(ALPS))
    together = shown(comfy, p, *(p.upscale((node, 0), scale) for scale in scales))
    assert [picture.shape[1] for picture in together] == [round(360 * scale) for scale in scales]


def test_masks_lead_and_follow(comfy):
    """Colour only where the attention lies: heat as a mask, composition, alpha taken apart again."""
    p = Prompt()
    gray, near = p.image(ALPS), p.image("scsnet_lake.jpg")
    node = p.reference(p.load(TINY), gray, near)
    heat = (p.viz((node, 2), "0.5, 0.2"), 2)
    whole = p.upscale((node, 0), 1.5)
    below = p.scaled(gray, 540, 432, method="bilinear", crop="disabled")
    mixed = (
        p.add(
            "ImageCompositeMasked", destination=below, source=whole, x=0, y=0, resize_source=False, mask=heat
        ),
        0,
    )  # fmt: skip
    cut = (p.add("JoinImageWithAlpha", image=mixed, alpha=(p.add("InvertMask", mask=heat), 0)), 0)
    again = p.auto(p.load(TINY), cut)
    apart = p.add("SplitImageWithAlpha", image=p.upscale((again, 0), 0.5))
    a, b, c = shown(comfy, p, mixed, (apart, 0), (p.add("MaskToImage", mask=(apart, 1)), 0))
    assert a.shape == (432, 540, 3)
    assert b.shape == c.shape == (216, 270, 3)
    assert c.std() > 0.01


def test_lists_of_batches(comfy):
    """RebatchImages gives a list: ComfyUI runs the nodes once for each item."""
    p = Prompt()
    frame = p.scaled(p.image(ALPS), 40, 32)
    frames = (p.add("RepeatImageBatch", image=frame, amount=5), 0)
    parts = (p.add("RebatchImages", images=frames, batch_size=2), 0)
    node = p.auto(p.load(TINY), parts)
    assert [picture.shape for picture in shown(comfy, p, p.upscale((node, 0), 2.0))] == [
        (64, 80, 3)
    ] * 5


def test_many_frames_and_the_progress_of_each(comfy):
    p = Prompt()
    frame = p.scaled(p.image(ALPS), 48, 32)
    node = p.auto(p.load(TINY), (p.add("RepeatImageBatch", image=frame, amount=48), 0))
    seen = _watch(comfy, p, p.preview(p.upscale((node, 0), 1.5)))
    values = [m["value"] / m["max"] for m in seen if m.get("node") == node]
    assert values == sorted(values)
    assert values[-1] == 1
    assert len(values) >= 3  # newer hosts send one message per 0.1 s at most


def _watch(comfy, prompt, preview):
    """The data of every progress message while a prompt runs, as a browser gets them; checks that 48 pictures came out."""
    with Events(comfy.port, "watcher") as events:
        prompt_id, seen = comfy.queue(prompt, "watcher"), []
        for kind, data in events:
            if kind == "progress":
                seen.append(data)
            if kind in ("execution_success", "execution_error"):
                break
    assert len(comfy.wait(prompt_id)["outputs"][preview]["images"]) == 48
    return seen


def test_48_frames_with_a_reference_each(comfy):
    """Every frame takes its own: the second half, with other references, comes out otherwise."""
    p = Prompt()
    frame, first, second = (
        p.scaled(p.image(f"scsnet_{name}.jpg"), 48, 32) for name in ("alps", "lake", "autumn")
    )
    frames = (p.add("RepeatImageBatch", image=frame, amount=48), 0)
    halves = [(p.add("RepeatImageBatch", image=near, amount=24), 0) for near in (first, second)]
    near = (p.add("ImageBatch", image1=halves[0], image2=halves[1]), 0)
    node = p.reference(p.load(TINY), frames, near, reference_batch="one per picture")
    results = shown(comfy, p, (node, 1))
    assert len(results) == 48
    assert all((picture == results[0]).all() for picture in results[:24])
    assert all((picture == results[24]).all() for picture in results[24:])
    assert (results[0] != results[24]).any()


def test_two_sizes_and_a_mask_in_one_batch(comfy):
    """ImageBatch brings the second picture to the size of the first."""
    p = Prompt()
    mask = (p.add("LoadImageMask", image="scsnet_lake.jpg", channel="red"), 0)
    other = (p.add("MaskToImage", mask=mask), 0)
    two = (p.add("ImageBatch", image1=p.image("scsnet_woman_1903.jpg"), image2=other), 0)
    node = p.auto(p.load(TINY), two)
    height, width = np.asarray(Image.open(comfy.base / "input" / "scsnet_woman_1903.jpg")).shape[:2]
    first, second = shown(comfy, p, p.upscale((node, 0), 0.5))
    assert first.shape == second.shape == (round(height / 2), round(width / 2), 3)
    assert (first != second).any()


def test_lists_of_pictures_with_lists_of_references(comfy):
    """ComfyUI runs the node once per pair of their items."""
    p = Prompt()
    frame = p.scaled(p.image(ALPS), 40, 32)
    frames = (p.add("RepeatImageBatch", image=frame, amount=5), 0)
    near = p.image("scsnet_lake.jpg"), p.image("scsnet_autumn.jpg")
    references = (p.add("ImageBatch", image1=near[0], image2=near[1]), 0)
    pictures_, references = (
        (p.add("RebatchImages", images=images, batch_size=size), 0)
        for images, size in ((frames, 3), (references, 1))
    )
    node = p.reference(p.load(TINY), pictures_, references)
    results = shown(comfy, p, (node, 1), (p.viz((node, 2)), 1))
    assert [picture.shape for picture in results[:5]] == [(32, 40, 3)] * 5
    assert (results[0] == results[2]).all()
    assert (results[0] != results[3]).any()
    assert len(results) == 10  # a map for every picture


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 40), (39, 2)])
def test_smallest_pictures(comfy, width, height):
    p = Prompt()
    alps, at = p.image(ALPS), {"x": 100, "y": 50}
    small, near = (
        (p.add("ImageCrop", image=alps, width=w, height=h, **at), 0)
        for w, h in ((width, height), (height, width))
    )
    node = p.reference(p.load(TINY), small, near)
    viz = p.viz((node, 2), "0, 0; 1, 1", what="both")
    same, large, figure = shown(comfy, p, (node, 1), p.upscale((node, 0), 16.0), (viz, 0))
    assert same.shape == (height, width, 3)
    assert large.shape == (16 * height, 16 * width, 3)
    assert figure.std() > 0.01


def test_black_and_white_stay_so(comfy):
    p = Prompt()
    model, size = p.load(TINY), {"width": 50, "height": 30, "batch_size": 1}
    nodes = [
        p.auto(model, (p.add("EmptyImage", color=color, **size), 0), strength=0.0)
        for color in (0, 0xFFFFFF)
    ]
    black, white = shown(comfy, p, *((node, 1) for node in nodes))
    assert black.max() < 0.005
    assert white.min() > 0.995


def test_the_ends_of_every_number(comfy):
    p = Prompt()
    model, alps = p.load(TINY), p.image(ALPS)
    small = (p.add("ImageCrop", image=alps, x=0, y=0, width=30, height=20), 0)
    sizes = (4, 6, 99, 1024)
    nodes = [p.reference(model, alps, small, working_size=size, strength=3.0) for size in sizes]
    lab = (p.auto(model, small), 0)
    points = "\n".join(f"{k / 29:.3f}, {1 - k / 29:.3f}" for k in range(30))
    options = {"level": "D1", "what": "both", "color_map": "viridis", "overlay": 0.0}
    figure = (p.viz((nodes[0], 2), points, **options), 0)
    window = {"window_x": 0.999, "window_y": 0.0, "window_width": 0.001, "window_height": 1.0}
    results = shown(
        comfy, p, *((node, 1) for node in nodes), figure, p.upscale(lab, 0.1), p.upscale(lab, 16.0, **window),
        p.upscale(lab, size_by="width and height", width=7), p.upscale(lab, size_by="megapixels", megapixels=0.01),
        p.upscale(lab, 2.0, luminance_image=alps, keep_luminance=True, strength=3.0),
    )  # fmt: skip
    assert [r.shape[:2] for r in results[:4]] == [(288, 360)] * 4
    expected = [(2, 3), (320, 1), (5, 7), (82, 122), (40, 60)]
    assert [r.shape[:2] for r in results[5:]] == expected
