"""What a real ComfyUI says when inputs, weights or the network fail."""

from __future__ import annotations

import shutil
import socket
import threading
import time

import pytest
from conftest import PACK, ROOT
from prompts import ALPS, TINY, Prompt, chain, pictures
from server import Server, StatusError


def errors(comfy, p) -> str:
    return comfy.fail(p)["exception_message"]


def test_messages_of_wrong_inputs(comfy):
    p = Prompt()
    node = p.reference(p.load(TINY), p.image(ALPS), p.image(ALPS))
    p.preview((p.viz((node, 2), "0.5, 1.5"), 0))
    failed = comfy.fail(p)
    assert "(0.5, 1.5) is outside of the picture" in failed["exception_message"]
    assert failed["current_inputs"]["attention"] == ["SCS_ATTENTION(1 pictures, 1 references)"]
    p = Prompt()
    node = p.auto(p.load(TINY), p.image(ALPS))
    p.preview(p.upscale((node, 0), 2.0, window_x=0.9, window_width=0.5))
    assert "must lie inside the picture" in errors(comfy, p)
    p = Prompt()
    p.preview((p.auto(p.load(TINY), p.image(ALPS), working_size=3), 1))
    assert "working size must be at least 4 pixels, got 3" in errors(comfy, p)


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
    assert "damaged.safetensors is not a valid safetensors file, or is truncated" in errors(
        comfy, p
    )
    path.unlink()


def test_weights_that_have_gone(comfy):
    """Newer hosts check the choices of a list themselves; older ones leave it to the node."""
    p = Prompt()
    p.preview((p.auto(p.load("gone.safetensors"), p.image(ALPS)), 1))
    try:
        message = errors(comfy, p)
    except StatusError as error:
        message = error.body
    assert "not found: 'gone.safetensors'" in message or "value_not_in_list" in message


def test_no_network(comfy):
    """The server runs with HF_HUB_OFFLINE; the message says what to do instead."""
    p = Prompt()
    p.preview((p.auto(p.load(TINY, hub_id="someone/scsnet"), p.image(ALPS)), 1))
    message = errors(comfy, p)
    assert "someone/scsnet" in message
    target = comfy.base / "models" / "scsnet" / "someone--scsnet" / "weights.safetensors"
    assert str(target) in message


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


def test_two_copies_start_without_a_network_and_stop_waiting_for_one(base, archive, tmp_path):
    """Importing the pack opens no connection; a download from a silent network is interrupted at once."""
    with Silence() as proxy:
        environment = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), proxy.url)
        environment |= dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), proxy.url)
        environment["HF_HUB_OFFLINE"] = "0"
        # Two copies of the pack under two names must not get into each other's way either.
        copies = {PACK: ROOT, "ComfyUI SCSNet-0.1.0": archive}
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
            requested = time.time()
            server.post("/interrupt", {})
            kind, data = server.wait(waiting)["status"]["messages"][-1]
            assert kind == "execution_interrupted"
            assert data["timestamp"] / 1000 - requested < 0.5
