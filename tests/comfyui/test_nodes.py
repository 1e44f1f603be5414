"""The nodes on a real ComfyUI over HTTP: results, caches, chains with the host's own nodes, messages."""

from __future__ import annotations

import shutil
import socket
import threading
import time

import numpy as np
import pytest
from conftest import PACK, ROOT, TINY, random_weights
from events import Events
from interruption import delays
from PIL import Image
from prompts import Prompt, pictures
from server import Server, StatusError, cached

from scsnet import SCSNetConfig

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
    together = _run(comfy, p, *(p.upscale((node, 0), scale) for scale in scales))
    assert [picture.shape[1] for picture in together] == [round(360 * scale) for scale in scales]


def test_masks_lead_and_follow(comfy):
    """Colour only where the attention lies: heat as a mask, composition, alpha taken apart again."""
    p = Prompt()
    gray, near = p.image(ALPS), p.image("scsnet_lake.jpg")
    node = p.reference(p.load(TINY), gray, near)
    heat = (p.viz((node, 1), "0.5, 0.2"), 2)
    whole = p.upscale((node, 0), 1.5)
    scaled = {"upscale_method": "bilinear", "width": 540, "height": 432, "crop": "disabled"}
    below = (p.add("ImageScale", image=gray, **scaled), 0)
    mixed = (
        p.add(
            "ImageCompositeMasked", destination=below, source=whole, x=0, y=0, resize_source=False, mask=heat
        ),
        0,
    )  # fmt: skip
    cut = (p.add("JoinImageWithAlpha", image=mixed, alpha=(p.add("InvertMask", mask=heat), 0)), 0)
    again = p.auto(p.load(TINY), cut)
    apart = p.add("SplitImageWithAlpha", image=p.upscale((again, 0), 0.5))
    a, b, c = _run(comfy, p, mixed, (apart, 0), (p.add("MaskToImage", mask=(apart, 1)), 0))
    assert a.shape == (432, 540, 3)
    assert b.shape == c.shape == (216, 270, 3)
    assert c.std() > 0.01


def test_lists_of_batches(comfy):
    """RebatchImages gives a list: ComfyUI runs the nodes once for each item."""
    p = Prompt()
    small = {"upscale_method": "area", "width": 40, "height": 32, "crop": "center"}
    frame = (p.add("ImageScale", image=p.image(ALPS), **small), 0)
    frames = (p.add("RepeatImageBatch", image=frame, amount=5), 0)
    parts = (p.add("RebatchImages", images=frames, batch_size=2), 0)
    node = p.auto(p.load(TINY), parts)
    assert [picture.shape for picture in _run(comfy, p, p.upscale((node, 0), 2.0))] == [
        (64, 80, 3)
    ] * 5


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


@pytest.fixture(scope="session")
def full(comfy) -> str:
    """Weights of the real size."""
    path = comfy.base / "models" / "scsnet" / "full.safetensors"
    random_weights(path, SCSNetConfig())
    return path.name


def test_interruption_within_a_fraction_of_a_second(comfy, full):
    """At any moment. What else the machine does may delay one stop; slices too large delay all three tries."""
    found = delays(comfy, full, moments=8, enough=0.2)
    assert max(found) < 0.2, found


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


class Silence:
    """A proxy that takes every connection and never says a word; `calls` holds what it was told."""

    def __enter__(self):
        self.calls, self.open, self.over = [], [], threading.Event()
        self.trap = socket.create_server(("127.0.0.1", 0))
        self.trap.settimeout(0.2)
        self.url = f"http://127.0.0.1:{self.trap.getsockname()[1]}"
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()
        return self

    def _listen(self):
        while not self.over.is_set():
            try:
                link = self.trap.accept()[0]
            except TimeoutError:
                continue
            self.open.append(link)
            link.settimeout(1)
            try:
                self.calls.append(link.recv(200))
            except TimeoutError:
                self.calls.append(b"")

    def to_the_hub(self):
        return [call for call in self.calls if b"huggingface" in call or b"hf.co" in call]

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        for link in [*self.open, self.trap]:
            link.close()


def test_two_copies_start_without_a_network_and_stop_waiting_for_one(base, tmp_path):
    """Importing the pack opens no connection; a download from a silent network is interrupted at once."""
    with Silence() as proxy:
        environment = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), proxy.url)
        environment |= dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), proxy.url)
        environment["HF_HUB_OFFLINE"] = "0"
        # Two copies of the pack under two names must not get into each other's way either.
        copies = {PACK: ROOT, "second_copy": ROOT}
        with Server(tmp_path, copies, environment=environment) as server:
            assert "IMPORT FAILED" not in server.log()
            info = server.get("/object_info/SCSColorizeAuto")
            assert info["SCSColorizeAuto"]["display_name"] == "SCS Colorize (automatic)"
            for file in (f"input/{ALPS}", f"models/scsnet/{TINY}"):
                shutil.copy(base / file, tmp_path / file)
            p, large, same = chain(1.3)
            outputs = server.run(p)
            assert pictures(server, outputs, large)[0].shape == (374, 468, 3)
            assert outputs[same]["images"]
            assert not proxy.to_the_hub()

            p = Prompt()
            p.preview((p.auto(p.load(TINY, hub_id="someone/scsnet"), p.image(ALPS)), 1))
            waiting = server.queue(p)
            end = time.monotonic() + 30
            while not proxy.to_the_hub() and time.monotonic() < end:
                time.sleep(0.1)
            assert proxy.to_the_hub()
            time.sleep(0.5)
            asked = time.time()
            server.post("/interrupt", {})
            kind, data = server.wait(waiting)["status"]["messages"][-1]
            assert kind == "execution_interrupted"
            assert data["timestamp"] / 1000 - asked < 0.5
