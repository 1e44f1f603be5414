"""What a real ComfyUI says when inputs, weights or the network fail."""

import shutil
import socketserver
import threading
import time

import pytest
from conftest import PACK, ROOT
from prompts import ALPS, TINY, Prompt, chain, pictures
from server import Server


def colorize(**load):
    """A prompt that colorizes with weights loaded so."""
    p = Prompt()
    p.preview(p.auto(p.load(**load), p.image()).at(1))
    return p


def test_an_error_and_the_inputs_of_its_node_are_short(comfy):
    p = Prompt()
    node = p.reference(p.load(), p.image(), p.image())
    p.preview(p.viz(node.at(2), "0.5, 1.5"))
    error = comfy.fail(p)
    assert "(0.5, 1.5) is outside of the picture" in error["exception_message"]
    assert error["current_inputs"]["attention"] == ["SCS_ATTENTION(1 pictures, 1 references)"]


def test_without_a_network_the_message_says_where_weights_belong(comfy):
    message = comfy.fail(colorize(hub_id="someone/scsnet"))["exception_message"]
    assert "someone/scsnet" in message
    assert str(comfy.base / "models/scsnet/someone--scsnet/weights.safetensors") in message


@pytest.fixture
def silent_proxy():
    """The address of a proxy that takes every connection and never answers, and what it was told."""
    told, over = [], threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            told.append(self.request.recv(200))
            over.wait()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever).start()
        yield f"http://127.0.0.1:{proxy.server_address[1]}", told
        over.set()
        proxy.shutdown()


def test_two_copies_start_without_a_network_and_a_download_stops_when_interrupted(
    base, archive, tmp_path, silent_proxy
):
    """Importing the pack opens no connection; a download from a silent network is interrupted at once."""
    address, told = silent_proxy
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    environment = {n: address for name in names for n in (name, name.lower())}
    environment["HF_HUB_OFFLINE"] = "0"

    def called_for_the_hub():
        return any(b"huggingface" in call or b"hf.co" in call for call in told)

    copies = {PACK: ROOT, "ComfyUI SCSNet-0.1.0": archive}
    with Server(tmp_path, copies, environment=environment) as server:
        assert "IMPORT FAILED" not in server.log()
        info = server.get("/object_info/SCSColorizeAuto")
        assert info["SCSColorizeAuto"]["display_name"] == "SCS Colorize (automatic)"
        for file in (f"input/{ALPS}", f"models/scsnet/{TINY}"):
            shutil.copy(base / file, tmp_path / file)
        p, *_, preview = chain(1.3)
        assert pictures(server, server.run(p), preview)[0].shape == (374, 468, 3)
        assert not called_for_the_hub()

        waiting = server.queue(colorize(hub_id="someone/scsnet"))
        end = time.monotonic() + 30
        while not called_for_the_hub():
            assert time.monotonic() < end
            time.sleep(0.1)
        time.sleep(0.5)
        assert server.interrupt(waiting) < 0.5
