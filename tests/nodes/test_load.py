"""LoadSCSNet against doubles of ComfyUI: the folder, the Hub, messages; and how the pack meets an old host."""

import asyncio
import logging
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from host_doubles import InterruptError, pack

from scsnet import SCSNet
from scsnet.checkpoint import save


@pytest.fixture
def folder(host):
    return Path(host.models_dir, "scsnet")


@pytest.fixture
def mine(folder, weights):
    folder.mkdir(parents=True)
    return Path(shutil.copy(weights, folder / "mine.safetensors"))


def load(nodes, name="bundled", hub_id="", dtype="auto"):
    return nodes.LoadSCSNet.execute(name, hub_id, dtype).args[0]


def options(nodes):
    return nodes.LoadSCSNet.define_schema().inputs[0].values["options"]


def test_weights_are_listed_and_loaded(nodes, folder, mine, tiny_net):
    (folder / "deep").mkdir()
    shutil.copy(mine, folder / "deep" / "other.safetensors")
    for name in ("readme.md", "old.pth", "mine.safetensors.part"):
        (folder / name).touch()
    assert options(nodes) == ["bundled", str(Path("deep/other.safetensors")), "mine.safetensors"]
    model = load(nodes, "mine.safetensors")
    assert str(model) == "SCSNET_MODEL(mine.safetensors, torch.float32)"
    loaded = model.patcher.model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tiny_net.state_dict().items())
    assert load(nodes, "mine.safetensors", dtype="bf16").dtype == torch.bfloat16


def test_folders_that_the_user_has_named_are_looked_into(host, tmp_path, weights):
    with pack(host) as module:
        paths = sys.modules["folder_paths"]
        paths.add_model_folder_path("scsnet", str(tmp_path))
        for _ in range(2):  # two copies of the pack register the same folder
            asyncio.run(module.comfy_entrypoint())
        assert options(module.nodes) == ["bundled", weights.name]
        assert module.nodes.host.download_folder() == Path(host.models_dir, "scsnet")
        assert len(paths.get_folder_paths("scsnet")) == 2
        assert load(module.nodes, weights.name).config.width == 8


def test_wrong_choices_are_named(nodes, folder, mine, tiny_config):
    missing = r"not found: 'gone.safetensors' in .*scsnet \(there: mine.safetensors\).*'bundled'"
    with pytest.raises(FileNotFoundError, match=missing):
        load(nodes, "gone.safetensors")
    with pytest.raises(ValueError, match="dtype must be auto, fp32, fp16 or bf16, got 'fp8'"):
        load(nodes, dtype="fp8")
    mine.write_bytes(mine.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"mine.safetensors.*truncated \(5,000 bytes\)"):
        load(nodes, "mine.safetensors")
    save(mine, SCSNet(replace(tiny_config, head="pixel_shuffle")))
    with pytest.raises(ValueError, match=r"mine.safetensors.*pixel_shuffle"):
        load(nodes, "mine.safetensors")


def test_fingerprint_follows_the_file(nodes, mine):
    fingerprint = nodes.LoadSCSNet.fingerprint_inputs
    there = fingerprint("mine.safetensors")
    assert there == fingerprint("mine.safetensors")
    mine.write_bytes(mine.read_bytes() + b"x")
    changed = fingerprint("mine.safetensors")
    mine.unlink()
    assert there != changed != fingerprint("mine.safetensors") != there
    assert fingerprint("mine.safetensors", "no hub id")


def test_a_file_is_downloaded_once_per_revision(nodes, folder, hub, weights, host):
    content = weights.read_bytes()
    commit = hub.commit("someone/scsnet", {"weights.safetensors": content, "b.sft": content})
    for _ in range(2):
        assert load(nodes, hub_id=" someone/scsnet ").config.width == 8
    assert sum("/stored/" in path for path in hub.requests) == 1
    assert host.progress[-1] == (len(content), len(content))
    assert options(nodes) == ["bundled", str(Path("someone--scsnet/weights.safetensors"))]
    load(nodes, hub_id=f"hf:someone/scsnet/b.sft@{commit}")
    assert (folder / f"someone--scsnet@{commit}" / "b.sft").is_file()


def test_a_failed_download_says_where_the_file_is_looked_for(nodes, folder, hub, weights):
    target = folder / "someone--scsnet" / "weights.safetensors"
    with pytest.raises(OSError, match=rf"Repository Not Found.* {target} is used"):
        load(nodes, hub_id="someone/scsnet")
    shutil.copy(weights, target)
    assert load(nodes, hub_id="someone/scsnet").config.width == 8


@pytest.mark.parametrize(("finishes", "downloads"), [(False, 2), (True, 1)])
def test_an_interrupted_download_ends_or_is_used(nodes, host, monkeypatch, finishes, downloads):
    """It ends itself at its next sign of life; one that has finished nevertheless is used."""
    asked, answer = [], threading.Event()

    def fetch(source, *, local_dir, progress):
        asked.append(source)
        assert answer.wait(30)  # the network is silent
        if not finishes:
            progress(1, 2)
        return Path("it came")

    monkeypatch.setattr(nodes.load.hub, "fetch", fetch)
    host.interrupt_after = 2
    with pytest.raises(InterruptError):
        load(nodes, hub_id="someone/scsnet")
    host.interrupt_after = None
    threading.Timer(0.2, answer.set).start()
    with pytest.raises(FileNotFoundError, match="it came"):
        load(nodes, hub_id="someone/scsnet")
    assert asked == ["hf:someone/scsnet"] * downloads


def test_addresses_of_the_hub_are_understood(nodes):
    for address, source in (
        ("huggingface.co/a/b/", "hf:a/b"),
        ("https://hf.co/a/b/tree/main", "hf:a/b"),
        (" https://huggingface.co/a/b/tree/v2 ", "hf:a/b@v2"),
        ("https://huggingface.co/a/b/blob/main/c/d.safetensors", "hf:a/b/c/d.safetensors"),
        ("https://huggingface.co/a/b/resolve/v2/c.safetensors?x=y", "hf:a/b/c.safetensors@v2"),
    ):
        assert nodes.load.to_hub_source(address) == source


def test_malformed_hub_ids_never_reach_the_network(nodes, hub):
    for hub_id in ("a", "a/b/c.pth", "../../a", "https://x.org/a/b", "hf.co/datasets/a/b"):
        with pytest.raises(ValueError, match="hub_id: expected owner/repo"):
            load(nodes, hub_id=hub_id)
    assert not hub.requests


OLD = ["0.3.63", "0.2", "0.3.63rc1", "0.3.48+cu128", "unknown"]
RECENT = ["0.3.64", "0.3.100", "1.0", "0.3.64-rc1", "0.3.70+cu128", "v0.4"]


@pytest.mark.parametrize("version", [*OLD, *RECENT])
def test_a_recent_host_gets_nodes_and_an_old_one_a_message(host, version, caplog):
    with caplog.at_level(logging.ERROR), pack(host, version) as module:
        assert hasattr(module, "comfy_entrypoint") == (version in RECENT)
        assert hasattr(module, "NODE_CLASS_MAPPINGS") == (version in OLD)
    assert len(caplog.records) == (version in OLD)
    assert "0.3.64" in caplog.text or version in RECENT
