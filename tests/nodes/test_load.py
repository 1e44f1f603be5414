"""LoadSCSNet against doubles of ComfyUI: the folder, the Hub, messages; and how the pack meets an old host."""

import asyncio
import logging
import shutil
import sys
import threading
from pathlib import Path

import pytest
import torch
from host_doubles import InterruptError, pack

from scsnet.checkpoint import save


@pytest.fixture
def weights(tmp_path, tiny_net):
    save(tmp_path / "weights.safetensors", tiny_net, card={})
    return tmp_path / "weights.safetensors"


@pytest.fixture
def folder(host):
    place = Path(host.models_dir, "scsnet")
    place.mkdir(parents=True)
    return place


def load(nodes, name="bundled", hub_id="", dtype="auto"):
    return nodes.LoadSCSNet.execute(name, hub_id, dtype).args[0]


def options(nodes):
    return nodes.LoadSCSNet.define_schema().inputs[0].values["options"]


def test_files_are_listed_by_their_ending(nodes, folder, weights):
    assert options(nodes) == ["bundled"]
    (folder / "deep").mkdir()
    shutil.copy(weights, folder / "mine.safetensors")
    shutil.copy(weights, folder / "deep" / "other.safetensors")
    for name in ("readme.md", "old.pth", "mine.safetensors.part"):
        (folder / name).write_bytes(b"")
    assert options(nodes) == ["bundled", str(Path("deep/other.safetensors")), "mine.safetensors"]


def test_folders_that_the_user_has_named_are_looked_into(host, tmp_path, weights):
    own = tmp_path / "elsewhere"
    own.mkdir()
    shutil.copy(weights, own / "mine.safetensors")
    with pack(host) as module:
        sys.modules["folder_paths"].add_model_folder_path("scsnet", str(own))
        for _ in range(2):  # two copies of the pack register the same folder
            asyncio.run(module.comfy_entrypoint())
        nodes = sys.modules[f"{module.__name__}.nodes"]
        assert options(nodes) == ["bundled", "mine.safetensors"]
        assert nodes.host.download_folder() == Path(host.models_dir, "scsnet")
        assert len(sys.modules["folder_paths"].get_folder_paths("scsnet")) == 2
        assert load(nodes, "mine.safetensors").config.width == 8


def test_loading(nodes, folder, weights, tiny_net):
    shutil.copy(weights, folder / "mine.safetensors")
    model = load(nodes, "mine.safetensors")
    assert model.name == "mine.safetensors"
    assert model.dtype == torch.float32
    assert not model.patcher.model.training
    loaded = model.patcher.model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tiny_net.state_dict().items())
    assert load(nodes, "mine.safetensors", dtype="bf16").dtype == torch.bfloat16


def test_a_file_that_is_gone(nodes, folder, weights):
    shutil.copy(weights, folder / "mine.safetensors")
    with pytest.raises(
        FileNotFoundError,
        match=r"not found: 'gone.safetensors' in .*scsnet \(there: mine.safetensors\).*'bundled'",
    ):
        load(nodes, "gone.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "header too small"),
        (b"\x80\x04" + 200 * b"x", "only safetensors is read"),
        (None, r"truncated \(5,000 bytes\)"),
    ],
)
def test_a_damaged_file_is_named(nodes, folder, weights, content, message):
    (folder / "bad.safetensors").write_bytes(
        weights.read_bytes()[:5000] if content is None else content
    )
    with pytest.raises(ValueError, match=f"bad.safetensors.*({message})"):
        load(nodes, "bad.safetensors")


def test_the_ablation_head_is_refused(nodes, folder, tmp_path):
    from scsnet import SCSNet, SCSNetConfig

    save(
        folder / "x4.safetensors",
        SCSNet(SCSNetConfig(width=8, depth=2, head="pixel_shuffle")),
        card={},
    )
    with pytest.raises(ValueError, match=r"x4.safetensors.*pixel_shuffle"):
        load(nodes, "x4.safetensors")


def test_an_unknown_type(nodes):
    with pytest.raises(ValueError, match="dtype must be auto, fp32, fp16 or bf16, got 'fp8'"):
        load(nodes, dtype="fp8")


def test_the_fingerprint_follows_the_file(nodes, folder, weights):
    fingerprint = nodes.LoadSCSNet.fingerprint_inputs
    missing = fingerprint("mine.safetensors")
    shutil.copy(weights, folder / "mine.safetensors")
    there = fingerprint("mine.safetensors")
    assert there == fingerprint("mine.safetensors") != missing
    with (folder / "mine.safetensors").open("ab") as file:
        file.write(b"x")
    assert fingerprint("mine.safetensors") != there
    assert fingerprint("mine.safetensors", "no hub id") is not None


@pytest.fixture
def downloads(nodes, weights, monkeypatch):
    """What was asked of the Hub, in place of the Hub."""
    asked = []

    def fetch(source, *, local_dir, progress):
        asked.append((source, local_dir))
        progress(1, 2)
        file = nodes.load.hub.parse(source).file
        target = Path(local_dir, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(weights, target))

    monkeypatch.setattr(nodes.load.hub, "fetch", fetch)
    return asked


def test_the_same_file_is_never_fetched_twice(nodes, folder, downloads, host):
    for _ in range(2):
        assert load(nodes, hub_id=" someone/scsnet ").config.width == 8
    assert downloads == [("hf:someone/scsnet", folder / "someone--scsnet")]
    assert host.progress == [(1, 2)]
    assert options(nodes) == ["bundled", str(Path("someone--scsnet/weights.safetensors"))]
    load(nodes, hub_id="hf:someone/scsnet/large.safetensors@v2")
    assert downloads[1:] == [
        ("hf:someone/scsnet/large.safetensors@v2", folder / "someone--scsnet@v2")
    ]
    assert (folder / "someone--scsnet@v2" / "large.safetensors").is_file()


def test_a_failed_download_says_where_the_file_is_looked_for(nodes, folder, weights, monkeypatch):
    def fetch(source, **_):
        raise nodes.load.hub.HubError("cannot fetch it: no network.")

    monkeypatch.setattr(nodes.load.hub, "fetch", fetch)
    target = folder / "someone--scsnet" / "weights.safetensors"
    with pytest.raises(OSError, match=rf"no network\. .*{target}"):
        load(nodes, hub_id="someone/scsnet")
    target.parent.mkdir(parents=True)
    shutil.copy(weights, target)
    assert load(nodes, hub_id="someone/scsnet").config.width == 8


@pytest.fixture
def silent(nodes, monkeypatch):
    """A Hub that says nothing until it is told to; the sources that it was asked for."""
    asked, answer = [], threading.Event()

    def fetch(source, *, local_dir, progress):
        asked.append(source)
        assert answer.wait(30)
        progress(1, 2)
        return Path("it came")

    monkeypatch.setattr(nodes.load.hub, "fetch", fetch)
    yield asked, answer
    answer.set()


def test_a_download_is_interrupted_while_the_network_is_silent(nodes, host, silent):
    _, answer = silent
    host.interrupt_after = 2
    with pytest.raises(InterruptError):
        load(nodes, hub_id="someone/scsnet")
    (download,) = nodes.download.Download.running.values()
    assert download.is_alive()
    answer.set()
    download.join(10)
    assert download.path is None  # it has ended itself at the first sign of life
    assert isinstance(download.error, nodes.download.DownloadCancelled)


def test_a_file_that_is_still_on_its_way_is_not_fetched_again(nodes, host, silent):
    asked, answer = silent
    host.interrupt_after = 2
    with pytest.raises(InterruptError):
        load(nodes, hub_id="someone/scsnet")
    (download,) = nodes.download.Download.running.values()
    host.interrupt_after, download.cancelled = None, False  # it was past the last sign of life
    threading.Timer(0.2, answer.set).start()
    with pytest.raises(FileNotFoundError, match="it came"):
        load(nodes, hub_id="someone/scsnet")
    assert asked == ["hf:someone/scsnet"]


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("https://huggingface.co/a/b", "hf:a/b"),
        ("huggingface.co/a/b/", "hf:a/b"),
        ("https://hf.co/a/b/tree/main", "hf:a/b"),
        (" https://huggingface.co/a/b/tree/v2 ", "hf:a/b@v2"),
        ("https://huggingface.co/a/b/blob/main/c/d.safetensors", "hf:a/b/c/d.safetensors"),
        (
            "https://huggingface.co/a/b/resolve/v2/c.safetensors?download=true",
            "hf:a/b/c.safetensors@v2",
        ),
    ],
)
def test_addresses_of_the_hub(nodes, downloads, address, source):
    load(nodes, hub_id=address)
    assert [item for item, _ in downloads] == [source]


@pytest.mark.parametrize(
    "hub_id",
    [
        "scsnet",
        "a/b/c.pth",
        "../../etc/passwd",
        "a/../b.safetensors",
        "https://x.org/a/b",
        "https://huggingface.co/a",
        "https://huggingface.co/../b",
        "https://huggingface.co/datasets/a/b",
    ],
)
def test_malformed_hub_ids_never_reach_the_network(nodes, downloads, hub_id):
    with pytest.raises(ValueError, match="hub_id: expected owner/repo"):
        load(nodes, hub_id=hub_id)
    assert downloads == []


@pytest.mark.parametrize(
    "version", ["0.3.48", "0.3.63", "0.2", "0.3.63rc1", "0.3.48+cu128", "unknown"]
)
def test_an_older_host_gets_one_line(host, version, caplog):
    with caplog.at_level(logging.ERROR), pack(host, version) as module:
        assert module.NODE_CLASS_MAPPINGS == {}
        assert not hasattr(module, "comfy_entrypoint")
    assert [r.getMessage() for r in caplog.records] == [
        "SCSNet needs ComfyUI 0.3.64 or newer. Update ComfyUI; until then this pack has no nodes."
    ]


@pytest.mark.parametrize(
    "version",
    [
        "0.3.64",
        "0.3.100",
        "0.33.1",
        "1.0",
        "0.3.65rc1",
        "0.3.64-rc1",
        "0.3.70+cu128",
        "0.4.0-beta",
        "v0.4",
    ],
)
def test_newer_hosts_get_the_entry_point_alone(host, version):
    with pack(host, version) as module:
        assert not hasattr(module, "NODE_CLASS_MAPPINGS")
        assert callable(module.comfy_entrypoint)
