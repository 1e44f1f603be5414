"""The nodes on a real ComfyUI over HTTP: results, caches, chains with the host's own nodes, messages."""

from __future__ import annotations

import socket
import threading
import time

import numpy as np
import pytest
from conftest import PACK, ROOT, TINY
from events import Events
from PIL import Image
from prompts import Prompt, pictures
from server import StatusError, cached, messages

ALPS = "scsnet_alps.jpg"  # 360 x 288


def luminance(picture: np.ndarray) -> np.ndarray:
    linear = np.where(picture > 0.04045, ((picture + 0.055) / 1.055) ** 2.4, picture / 12.92)
    return linear[..., :3] @ [0.2126, 0.7152, 0.0722]


def chain(scale: float = 1.5, image: str = ALPS, **auto) -> tuple[Prompt, str, str]:
    """Load, colorize, enlarge, and a preview of both pictures."""
    p = Prompt()
    node = p.auto(p.load(TINY), p.image(image), **auto)
    return p, p.preview(p.upscale((node, 0), scale)), p.preview((node, 1))


def test_colorize_and_enlarge(comfy):
    p, large, same = chain(2.37)
    outputs = comfy.run(p)
    assert pictures(comfy, outputs, large)[0].shape == (683, 853, 3)
    (picture,) = pictures(comfy, outputs, same)
    source = np.asarray(Image.open(comfy.base / "input" / ALPS)) / 255
    assert picture.shape == source.shape
    assert np.abs(luminance(picture) - luminance(source)).mean() < 0.02


def test_changing_the_scale_runs_the_head_only(comfy):
    p, large, _ = chain(1.2)
    comfy.run(p)
    nodes = {node["class_type"]: name for name, node in p.items()}
    p[nodes["SCSContinuousUpscale"]]["inputs"]["scale"] = 1.9
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
    viz = p.viz((node, 1), "0.2, 0.2; 0.6, 0.8", what="both")
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
    first, second = _run(comfy, p, (node, 2))
    assert np.abs(first - second).max() > 0.01


def _run(comfy, p, *images):
    """Pictures of these outputs together."""
    shown = [p.preview(image) for image in images]
    outputs = comfy.run(p)
    return [picture for node in shown for picture in pictures(comfy, outputs, node)]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_on_request(comfy, dtype):
    p = Prompt()
    image = p.image(ALPS)
    nodes = [p.auto(p.load(TINY, dtype=name), image) for name in ("fp32", dtype)]
    whole, half = _run(comfy, p, *(p.upscale((node, 0), 0.7) for node in nodes))
    assert 0 < np.abs(whole - half).mean() < 0.01


def test_transparent_pictures_keep_their_alpha(comfy):
    alpha = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (48, 1))
    rgb = np.asarray(Image.open(comfy.base / "input" / ALPS).resize((64, 48)))
    Image.fromarray(np.dstack([rgb, alpha])).save(comfy.base / "input" / "rgba.png")
    p = Prompt()
    image = p.image("rgba.png")
    joined = (p.add("JoinImageWithAlpha", image=image, alpha=(image[0], 1)), 0)
    node = p.auto(p.load(TINY), joined)
    same, large = _run(comfy, p, (node, 1), p.upscale((node, 0), 2.0))
    assert same.shape == (48, 64, 4)
    assert np.abs(same[..., 3] - alpha / 255).max() < 0.01
    assert large.shape == (96, 128, 4)
    assert np.abs(large[::2, ::2, 3] - alpha / 255).max() < 0.05


def test_the_hosts_own_nodes_before_and_after(comfy):
    p = Prompt()
    small = (
        p.add(
            "ImageScale",
            image=p.image(ALPS),
            upscale_method="area",
            width=77,
            height=51,
            crop="center",
        ),
        0,
    )
    node = p.auto(p.load(TINY), small)
    image = p.upscale((node, 0), 1.5, luminance_image=small)
    inverted = (p.add("ImageInvert", image=image), 0)
    mask = (p.add("ImageToMask", image=image, channel="red"), 0)
    (a, b) = _run(comfy, p, inverted, (p.add("MaskToImage", mask=mask), 0))
    assert a.shape == b.shape == (76, 116, 3)


def test_many_frames_and_the_progress_of_each(comfy):
    p = Prompt()
    frame = (
        p.add(
            "ImageScale",
            image=p.image(ALPS),
            upscale_method="area",
            width=48,
            height=32,
            crop="center",
        ),
        0,
    )
    node = p.auto(p.load(TINY), (p.add("RepeatImageBatch", image=frame, amount=48), 0))
    seen = _watch(comfy, p, p.preview(p.upscale((node, 0), 1.5)))
    values = [m["value"] / m["max"] for m in seen if m.get("node") == node]
    assert values == sorted(values)
    assert values[-1] == 1
    assert len(values) >= 48


def _watch(comfy, prompt, shown):
    """The data of every progress message while a prompt runs, as a browser gets them; checks that 48 pictures came out."""
    with Events(comfy.port, "watcher") as events:
        prompt_id, seen = comfy.queue(prompt, "watcher"), []
        for kind, data in events:
            if kind == "progress":
                seen.append(data)
            if kind in ("execution_success", "execution_error"):
                break
    assert len(comfy.wait(prompt_id)["outputs"][shown]["images"]) == 48
    return seen


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0, 3.5])
def test_interruption_within_a_fraction_of_a_second(comfy, seconds):
    """At any moment of a big job: encoding a large picture, rendering it, enlarging it."""
    if not (comfy.base / "models" / "scsnet" / "full.safetensors").exists():
        from conftest import random_weights

        from scsnet import SCSNetConfig

        random_weights(comfy.base / "models" / "scsnet" / "full.safetensors", SCSNetConfig())
    Image.effect_noise((900, 700), 60).save(comfy.base / "input" / "big.png")
    p = Prompt()
    node = p.auto(p.load("full.safetensors"), p.image("big.png"), strength=1 + seconds / 100)
    p.preview(p.upscale((node, 0), 4.0))
    prompt_id = comfy.queue(p)
    time.sleep(seconds)
    asked = time.monotonic()
    comfy.post("/interrupt", {})
    history = comfy.wait(prompt_id)
    assert time.monotonic() - asked < 0.3  # 0.2 and what HTTP and polling take
    assert messages(history)[-1] == "execution_interrupted"


def errors(comfy, p) -> str:
    return comfy.fail(p)["exception_message"]


def test_messages_of_wrong_inputs(comfy):
    p = Prompt()
    node = p.reference(p.load(TINY), p.image(ALPS), p.image(ALPS))
    p.preview((p.viz((node, 1), "0.5, 1.5"), 0))
    failed = comfy.fail(p)
    assert "(0.5, 1.5) is outside of the picture" in failed["exception_message"]
    assert failed["current_inputs"]["attention"] == ["SCS_ATTENTION(1 pictures, 1 references)"]
    p = Prompt()
    node = p.auto(p.load(TINY), p.image(ALPS))
    p.preview(p.upscale((node, 0), 2.0, window_x=0.9, window_width=0.5))
    assert "must lie inside the picture" in errors(comfy, p)


def test_wrong_wiring_is_refused_before_anything_runs(comfy):
    p = Prompt()
    p.preview(p.upscale(p.image(ALPS)))
    with pytest.raises(StatusError) as caught:
        comfy.queue(p)
    (node,) = caught.value.json["node_errors"].values()
    assert node["errors"][0]["type"] == "return_type_mismatch"
    p = Prompt()
    p.preview(p.upscale((p.auto(p.load(TINY), p.image(ALPS)), 0), 17.0))
    with pytest.raises(StatusError) as caught:
        comfy.queue(p)
    assert "value_bigger_than_max" in caught.value.body


def test_damaged_weights_are_named(comfy):
    path = comfy.base / "models" / "scsnet" / "damaged.safetensors"
    path.write_bytes(b"\x10\x00")
    p = Prompt()
    p.preview((p.auto(p.load(path.name), p.image(ALPS)), 1))
    assert "damaged.safetensors is empty or truncated" in errors(comfy, p)
    path.unlink()


def test_weights_that_have_gone(comfy):
    """Newer hosts check the choices of a list themselves; older ones leave it to the node."""
    p = Prompt()
    p.preview((p.auto(p.load("gone.safetensors"), p.image(ALPS)), 1))
    try:
        message = errors(comfy, p)
    except StatusError as error:
        message = error.body
    assert "'gone.safetensors' is not in" in message or "value_not_in_list" in message


def test_no_network(comfy):
    """The server runs with HF_HUB_OFFLINE; the message says what to do instead."""
    p = Prompt()
    p.preview((p.auto(p.load(TINY, hub_id="someone/scsnet"), p.image(ALPS)), 1))
    message = errors(comfy, p)
    assert "hf:someone/scsnet" in message
    assert "by hand" in message


def test_nothing_goes_over_the_network_at_start(base, tmp_path):
    """Importing the pack opens no connection: any attempt would be seen by this proxy."""
    from server import Server

    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.settimeout(0.2)
        proxy = f"http://127.0.0.1:{trap.getsockname()[1]}"
        calls, stop = [], threading.Event()

        def wait_for_calls():
            while not stop.is_set():
                try:
                    calls.append(trap.accept()[0].recv(200))
                except TimeoutError:
                    continue

        thread = threading.Thread(target=wait_for_calls)
        thread.start()
        environment = {
            "HTTP_PROXY": proxy,
            "HTTPS_PROXY": proxy,
            "ALL_PROXY": proxy,
            "HF_HUB_OFFLINE": "0",
        }
        try:
            # Two copies of the pack under two names must not get into each other's way either.
            with Server(
                tmp_path, {PACK: ROOT, "second_copy": ROOT}, environment=environment
            ) as server:
                assert "IMPORT FAILED" not in server.log()
                info = server.get("/object_info/SCSColorizeAuto")
                assert info["SCSColorizeAuto"]["display_name"] == "SCS Colorize (automatic)"
        finally:
            stop.set()
            thread.join()
        assert not [c for c in calls if b"huggingface" in c or b"hf.co" in c], calls
