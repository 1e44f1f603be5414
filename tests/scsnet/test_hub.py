"""Downloads with the real huggingface_hub client from a local server."""

import random

import pytest
from hub_server import sha256
from huggingface_hub import close_session

from scsnet import checkpoint
from scsnet.checkpoint.hub import HubError, HubFile, fetch, parse

DATA = random.Random(0).randbytes(300_000)
OFFLINE = "huggingface_hub.constants.HF_HUB_OFFLINE"


def fetch_error(source, **options):
    with pytest.raises(HubError) as error:
        fetch(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def files(folder):
    """Regular files of a folder, without the client's locks and notes."""
    paths = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    return [path for path in paths if path.stat().st_size > 1000]


def test_parses_sources():
    assert parse("hf:owner/repo") == HubFile("owner/repo", "weights.safetensors", "main")
    source = "hf:o-w.n/r_e.p/sub/a.sft@refs/pr/1"
    assert parse(source) == HubFile("o-w.n/r_e.p", "sub/a.sft", "refs/pr/1")
    assert str(parse(source)) == source


def test_downloads_once_into_the_cache_of_the_client(hub, home):
    commit = hub.commit("owner/repo", {"weights.safetensors": DATA})
    steps = []
    path = fetch("hf:owner/repo", progress=lambda *step: steps.append(step))
    assert path.read_bytes() == DATA
    assert commit in path.parts
    assert home in path.parents
    assert steps[-1] == (len(DATA), len(DATA))
    fetch("hf:owner/repo")
    assert hub.requests.count(f"/stored/{sha256(DATA)}") == 1


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("why", ["forbidden", "no server", "error 500"])
def test_a_cached_file_needs_no_network(hub, monkeypatch, pinned, why):
    commit = hub.commit("owner/repo", {"weights.safetensors": DATA})
    source = f"hf:owner/repo@{commit}" if pinned else "hf:owner/repo"
    path = fetch(source)
    hub.requests.clear()
    if why == "forbidden":
        monkeypatch.setattr(OFFLINE, True)
    elif why == "no server":
        hub.server_close()
        close_session()
    else:
        hub.status = 500
    assert fetch(source) == path
    assert not hub.requests or (why == "error 500" and not pinned)


def test_tells_what_to_do_without_a_network(hub, monkeypatch):
    url = f"{hub.url}/owner/repo/resolve/main/weights.safetensors"
    hub.server_close()
    message = fetch_error("hf:owner/repo")
    assert "cannot fetch hf:owner/repo/weights.safetensors@main: " in message
    assert "Connection refused" in message
    assert f"Check the network, HF_ENDPOINT and HF_TOKEN, or download {url} by hand" in message
    monkeypatch.setattr(OFFLINE, True)
    message = fetch_error("hf:owner/repo")
    assert "offline mode is enabled" in message
    assert f"download {url} by hand" in message


@pytest.mark.parametrize(
    ("source", "status", "reason"),
    [
        ("hf:owner/private", None, "Repository Not Found"),
        ("hf:owner/gated", None, "gated repo"),
        ("hf:owner/repo/none.safetensors", None, "Entry Not Found"),
        ("hf:owner/repo@v2", None, "Revision Not Found"),
        ("hf:owner/repo", 200, "HF_ENDPOINT is set"),  # no Hub
        ("hf:owner/repo", 500, "500 "),
    ],
)
def test_tells_what_the_hub_does_not_give(hub, home, source, status, reason):
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    hub.commit("owner/gated", {"weights.safetensors": DATA})
    hub.gated.add("owner/gated")
    hub.status = status
    message = fetch_error(source)
    assert reason in message
    assert f"cannot fetch {parse(source)}: " in message
    assert not files(home)


@pytest.mark.parametrize("into", ["cache", "cache without links", "folder"])
@pytest.mark.parametrize("fault", ["cut", "damage", "interruption"])
def test_a_failed_download_leaves_nothing(hub, tmp_path, monkeypatch, fault, into):
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    options = {"local_dir": tmp_path / "models"} if into == "folder" else {}
    if into == "cache without links":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_SYMLINKS", True)
    if fault == "interruption":

        def interrupt(done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fetch("hf:owner/repo", progress=interrupt, **options)
    else:
        hub.cut, hub.damage = fault == "cut", fault == "damage"
        words = {"cut": "Check the network", "damage": f"not have the SHA-256 {sha256(DATA)}"}
        assert words[fault] in fetch_error("hf:owner/repo", **options)
    assert not files(tmp_path)
    hub.cut = hub.damage = False
    for _ in range(2):  # the second time from this machine
        path = fetch("hf:owner/repo", **options)
        assert path.read_bytes() == DATA
        assert path.is_symlink() == (into == "cache")
    assert not list(tmp_path.rglob(".download-*"))


def test_loads_a_network_and_warns_where_the_hub_states_no_sha256(hub, weights, tiny_net, caplog):
    hub.lfs = False
    hub.commit("owner/repo", {"weights.safetensors": weights.read_bytes()})
    assert checkpoint.load("hf:owner/repo").config == tiny_net.config
    assert "states no SHA-256 to check" in caplog.text


def test_downloads_into_a_folder_of_the_caller(hub, tmp_path, home):
    hub.commit("owner/repo", {"a/w.safetensors": DATA})
    folder = tmp_path / "models"
    path = fetch("hf:owner/repo/a/w.safetensors", local_dir=folder)
    assert path.read_bytes() == DATA
    assert sorted(folder.rglob("*")) == [folder / "a", path]
    assert not files(home)
    hub.requests.clear()
    path.write_bytes(DATA[::-1])  # put there by hand
    assert fetch("hf:owner/repo/a/w.safetensors", local_dir=folder).read_bytes() == DATA[::-1]
    assert not hub.requests
