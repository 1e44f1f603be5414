"""Downloads, with the real huggingface_hub client in a process of its own against a local server.

Its environment is the real interface too: HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer, Repo, git_sha1, sha256

from scsnet import SCSNet, checkpoint
from scsnet.checkpoint.hub import HubFile, _matches, parse

ROOT = Path(__file__).resolve().parents[2]
DATA = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(200_000)
LONG = random.Random(2).randbytes(12_000_000)  # the client keeps what it has in pieces of 10 MiB
COMMIT = "0123456789abcdef0123456789abcdef01234567"

# fetch() in a fresh process, without the package around it, which would import torch. The client's waits
# between its retries (up to 8 s) are cut short.
FETCH = """
import builtins, json, sys, time, types
sleep, time.sleep = time.sleep, lambda seconds: sleep(min(seconds, 0.01))
package = sys.modules["scsnet"] = types.ModuleType("scsnet")
package.__path__ = [sys.argv[1]]
from scsnet.checkpoint import hub
assert "huggingface_hub" not in sys.modules
options, steps = json.loads(sys.argv[3]), []
if stop := options.pop("stop", None):
    def progress(done, total):
        raise getattr(builtins, stop)("enough")
else:
    def progress(done, total):
        steps.append((done, total))
try:
    path = hub.fetch(sys.argv[2], progress=progress, **options)
    print(json.dumps({"path": str(path), "steps": steps}))
except (hub.HubError, KeyboardInterrupt, RuntimeError) as error:
    print(json.dumps({"error": type(error).__name__ + ": " + str(error)}))
"""


def environment(url, home, **extra):
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGINGFACE_"))
    }
    return (
        clean
        | {
            "HF_ENDPOINT": url,
            "HF_HOME": str(home),
            "NO_PROXY": "*",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        | extra
    )


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def run(hub, home):
    """run(source, local_dir=..., stop=..., HF_...=...) -> what fetch() did, in a fresh process."""

    def run(source, url=None, **options):
        extra = {name: options.pop(name) for name in list(options) if name.startswith("HF_")}
        arguments = [
            sys.executable,
            "-c",
            FETCH,
            ROOT / "scsnet",
            source,
            json.dumps(options, default=str),
        ]
        done = subprocess.run(
            arguments,
            env=environment(url or hub.url, home, **extra),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def get(run):
    """As run, for what must succeed: the path."""

    def get(*args, **options):
        result = run(*args, **options)
        assert "path" in result, result
        return Path(result["path"])

    return get


@pytest.fixture
def error(run):
    """As run, for what must fail: the message, one line."""

    def error(*args, **options):
        result = run(*args, **options)
        assert "error" in result, result
        message = result["error"].removeprefix("HubError: ")
        assert message != result["error"], "not a HubError"
        assert "\n" not in message
        return message

    return error


def files(folder):
    """Regular files of a folder, without the client's locks and notes."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_size > 1000
    )


# The source.


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf:owner/repo", HubFile("owner/repo", "weights.safetensors", "main")),
        ("hf:owner/repo@v1.0", HubFile("owner/repo", "weights.safetensors", "v1.0")),
        ("hf:o-w.n/r_e.p/a.safetensors", HubFile("o-w.n/r_e.p", "a.safetensors", "main")),
        ("hf:owner/repo/sub/a.sft@refs/pr/1", HubFile("owner/repo", "sub/a.sft", "refs/pr/1")),
        (f"hf:owner/repo@{COMMIT}", HubFile("owner/repo", revision=COMMIT)),
    ],
)
def test_parse(source, expected):
    assert parse(source) == expected
    assert parse(str(expected)) == expected
    assert parse(source).pinned == (expected.revision == COMMIT)


@pytest.mark.parametrize(
    "source",
    [
        "hf:",
        "hf:owner",
        "hf:/repo",
        "hf:owner/",
        "hf:owner/repo/",
        "hf:owner/repo@",
        "hf:owner/repo@a b",
        "hf:owner/repo/../../x.safetensors",
        "hf:owner/repo/..\\x.safetensors",
        "hf:owner/repo/x.safetensors@..",
        "hf:owner/repo/x.bin",
        "hf:owner/repo/x.safetensors?download=true",
        "hf://owner/repo",
        "https://huggingface.co/owner/repo",
    ],
)
def test_parse_refuses(source):
    with pytest.raises(ValueError, match="safetensors"):
        parse(source)


# Downloads.


def test_download(hub, get, home):
    commit = hub.commit("owner/repo", {"weights.safetensors": DATA})
    path = get("hf:owner/repo")
    assert path.read_bytes() == DATA
    assert commit in path.parts
    assert home in path.parents
    assert [request.server for request in hub.requests if request.method == "GET"] == ["store"]


def test_small_files_have_another_kind_of_hash(hub, get, monkeypatch):
    monkeypatch.setattr("hub_server.LARGE", ())
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    assert get("hf:owner/repo").read_bytes() == DATA
    assert git_sha1(DATA)


def test_named_file_and_revision(hub, get):
    first = hub.commit("owner/repo", {"sub/a.safetensors": DATA}, ref="v1")
    hub.commit("owner/repo", {"sub/a.safetensors": OTHER})
    assert get("hf:owner/repo/sub/a.safetensors@v1").read_bytes() == DATA
    assert get("hf:owner/repo/sub/a.safetensors").read_bytes() == OTHER
    assert get(f"hf:owner/repo/sub/a.safetensors@{first}").read_bytes() == DATA


def test_cached_and_pinned_costs_no_request(hub, get):
    commit = hub.commit("owner/repo", {"weights.safetensors": DATA})
    path = get(f"hf:owner/repo@{commit}")
    hub.requests.clear()
    assert get(f"hf:owner/repo@{commit}") == path
    assert not hub.requests


def test_cached_branch_asks_but_does_not_fetch_again(hub, get):
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    path = get("hf:owner/repo")
    hub.requests.clear()
    assert get("hf:owner/repo") == path
    assert [request.method for request in hub.requests] == ["HEAD"]


def test_a_branch_that_moved_is_fetched_again(hub, get):
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    get("hf:owner/repo")
    hub.commit("owner/repo", {"weights.safetensors": OTHER})
    assert get("hf:owner/repo").read_bytes() == OTHER


def test_same_content_at_another_commit_is_not_fetched_again(hub, get):
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    get("hf:owner/repo")
    hub.commit("owner/repo", {"README.md": b"new"})
    hub.requests.clear()
    assert get("hf:owner/repo").read_bytes() == DATA
    assert not [request for request in hub.requests if request.method == "GET"]


def test_cached_without_symbolic_links(hub, get):
    commit = hub.commit("owner/repo", {"weights.safetensors": DATA})
    for _ in range(2):
        path = get(f"hf:owner/repo@{commit}", HF_HUB_DISABLE_SYMLINKS="1")
        assert path.read_bytes() == DATA
        assert not path.is_symlink()
    assert [request.method for request in hub.requests if request.server == "store"] == ["GET"]


def test_progress(hub, run):
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    assert run("hf:owner/repo")["steps"][-1] == [len(DATA), len(DATA)]


@pytest.mark.parametrize("stop", ["KeyboardInterrupt", "RuntimeError"])
def test_interrupted_by_progress(hub, run, home, stop):
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    assert run("hf:owner/repo", stop=stop)["error"] == f"{stop}: enough"
    assert not files(home)


def test_token_goes_to_the_hub_only(hub, get):
    hub.commit("owner/private", {"weights.safetensors": DATA}, token="secret")
    assert get("hf:owner/private", HF_TOKEN="secret").read_bytes() == DATA
    assert {request.token for request in hub.requests if request.server == "hub"} == {"secret"}
    assert {request.token for request in hub.requests if request.server == "store"} == {None}


# Offline.


@pytest.mark.parametrize("pinned", [True, False])
def test_offline_and_cached(hub, get, pinned):
    commit = hub.commit("owner/repo", {"weights.safetensors": DATA})
    source = f"hf:owner/repo@{commit}" if pinned else "hf:owner/repo"
    path = get(source)
    hub.requests.clear()
    assert get(source, HF_HUB_OFFLINE="1") == path
    assert not hub.requests


def test_offline_and_not_cached(hub, error):
    commit = hub.commit("owner/repo", {"weights.safetensors": DATA})
    message = error(f"hf:owner/repo@{commit}", HF_HUB_OFFLINE="1")
    assert f"hf:owner/repo/weights.safetensors@{commit}: it is not on this machine" in message
    assert "HF_HUB_OFFLINE" in message
    assert f"{hub.url}/owner/repo/resolve/{commit}/weights.safetensors by hand" in message
    assert not hub.requests


def test_nobody_answers_and_cached(hub, get):
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    path = get("hf:owner/repo")
    hub.close()
    assert get("hf:owner/repo") == path


def test_nobody_answers_and_not_cached(hub, error):
    hub.close()
    message = error("hf:owner/repo")
    assert f"the connection to {hub.url} failed" in message
    assert "HF_ENDPOINT" in message


# What the server may answer.


@pytest.mark.parametrize("token", [{}, {"HF_TOKEN": "some"}])
def test_missing_repo(hub, error, token):
    message = error("hf:owner/none", **token)
    assert f"{hub.url} has no repository 'owner/none', or it is private" in message
    assert "HF_TOKEN" in message


def test_private_repo(hub, error):
    hub.commit("owner/private", {"weights.safetensors": DATA}, token="secret")
    assert "or it is private" in error("hf:owner/private")
    assert "or it is private" in error("hf:owner/private", HF_TOKEN="wrong")


def test_gated_repo(hub, error):
    hub.commit("owner/gated", {"weights.safetensors": DATA}, gated=True)
    message = error("hf:owner/gated")
    assert f"access is restricted: ask for it at {hub.url}/owner/gated" in message


def test_missing_file(hub, error):
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    assert "owner/repo has no file 'none.safetensors' at main" in error(
        "hf:owner/repo/none.safetensors"
    )


def test_missing_revision(hub, error):
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    assert f"owner/repo has no revision '{COMMIT}'" in error(f"hf:owner/repo@{COMMIT}")
    assert "owner/repo has no revision 'v9'" in error("hf:owner/repo@v9")


@pytest.mark.parametrize("status", [500, 503, 429])
def test_server_error(hub, error, home, status):
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    hub.status = status
    message = error("hf:owner/repo")
    assert f"{hub.url} answered with error {status}: try again later, or download" in message
    assert len(hub.requests) > 2  # the client's retries
    assert not files(home)


def test_server_error_and_cached(hub, get):
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    path = get("hf:owner/repo")
    hub.status = 500
    assert get("hf:owner/repo") == path


def test_refused(hub, error):
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    hub.status = 403
    assert "the server refuses (403)" in error("hf:owner/repo")


def test_another_web_site(hub, error):
    """HF_ENDPOINT points to something that answers everything with 200."""
    hub.status = 200
    assert "cannot fetch hf:owner/repo/weights.safetensors@main: " in error("hf:owner/repo")


def test_connection_cut_and_resumed(hub, get):
    hub.commit("owner/repo", {"weights.safetensors": LONG})
    hub.cut_at, hub.cuts = 11_000_000, 1
    assert get("hf:owner/repo").read_bytes() == LONG
    ranges = [request.range for request in hub.requests if request.server == "store"]
    assert ranges == [None, "bytes=10485760-"]


def test_connection_cut_and_begun_anew(hub, get):
    hub.commit("owner/repo", {"weights.safetensors": LONG})
    hub.cut_at, hub.cuts, hub.no_range = 11_000_000, 1, True
    assert get("hf:owner/repo").read_bytes() == LONG


def test_connection_cut_for_good(hub, error, home):
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    hub.cut_at, hub.cuts = 0, 1000
    assert "the connection to" in error("hf:owner/repo")
    assert not files(home)


@pytest.mark.parametrize("links", [{}, {"HF_HUB_DISABLE_SYMLINKS": "1"}])
def test_wrong_hash(hub, error, get, home, links):
    commit = hub.commit("owner/repo", {"weights.safetensors": DATA})
    hub.damage = True
    message = error(f"hf:owner/repo@{commit}", **links)
    assert f"300,000 bytes do not have the hash {sha256(DATA)}" in message
    assert not files(home)
    hub.damage = False
    assert get(f"hf:owner/repo@{commit}", **links).read_bytes() == DATA


def test_a_cached_file_that_rotted(hub, error, get):
    commit = hub.commit("owner/repo", {"weights.safetensors": DATA})
    path = get(f"hf:owner/repo@{commit}")
    path.resolve().chmod(0o644)
    path.resolve().write_bytes(OTHER)
    assert "is damaged" in error(f"hf:owner/repo@{commit}")
    assert get(f"hf:owner/repo@{commit}").read_bytes() == DATA


# A folder of the host's own.


def test_local_dir(hub, get, tmp_path, home):
    commit = hub.commit("owner/repo", {"a/w.safetensors": DATA})
    folder = tmp_path / "models"
    path = get(f"hf:owner/repo/a/w.safetensors@{commit}", local_dir=folder)
    assert path == folder / "a" / "w.safetensors"
    assert path.read_bytes() == DATA
    assert files(folder) == [path]
    assert not files(home)
    assert not list(folder.glob(".download-*"))
    hub.requests.clear()
    assert get(f"hf:owner/repo/a/w.safetensors@{commit}", local_dir=folder) == path
    assert get("hf:owner/repo/a/w.safetensors", local_dir=folder, HF_HUB_OFFLINE="1") == path
    assert not hub.requests
    get("hf:owner/repo/a/w.safetensors", local_dir=folder)
    assert [request.method for request in hub.requests] == ["HEAD"]


def test_local_dir_from_the_cache(hub, get, tmp_path):
    commit = hub.commit("owner/repo", {"weights.safetensors": DATA})
    get("hf:owner/repo")
    hub.requests.clear()
    path = get(f"hf:owner/repo@{commit}", local_dir=tmp_path / "models")
    assert path.read_bytes() == DATA
    assert not [request for request in hub.requests if request.method == "GET"]


def test_local_dir_with_a_file_put_there_by_hand(hub, get, tmp_path):
    commit = hub.commit("owner/repo", {"weights.safetensors": DATA})
    path = tmp_path / "weights.safetensors"
    path.write_bytes(DATA)
    assert get(f"hf:owner/repo@{commit}", local_dir=tmp_path) == path
    assert [request.method for request in hub.requests] == ["HEAD"]
    hub.requests.clear()
    get(f"hf:owner/repo@{commit}", local_dir=tmp_path)
    assert not hub.requests


def test_local_dir_offline_with_a_file_put_there_by_hand(get, tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(DATA)
    get(f"hf:owner/repo@{COMMIT}", local_dir=tmp_path, HF_HUB_OFFLINE="1")
    assert (tmp_path / "weights.safetensors").read_bytes() == DATA


@pytest.mark.parametrize("fault", ["cut", "damage", "status", "stop"])
def test_local_dir_keeps_the_old_file_when_the_new_one_fails(hub, get, run, tmp_path, fault):
    first = hub.commit("owner/repo", {"weights.safetensors": DATA})
    folder = tmp_path / "models"
    path = get(f"hf:owner/repo@{first}", local_dir=folder)
    second = hub.commit("owner/repo", {"weights.safetensors": OTHER})
    if fault == "cut":
        hub.cut_at, hub.cuts = 0, 1000
    elif fault == "damage":
        hub.damage = True
    elif fault == "status":
        hub.status = 404
    failed = run(
        f"hf:owner/repo@{second}",
        local_dir=folder,
        stop="KeyboardInterrupt" if fault == "stop" else None,
    )
    words = {"cut": "connection", "damage": "damaged", "status": "error 404", "stop": "enough"}[
        fault
    ]
    assert words in failed["error"]
    assert path.read_bytes() == DATA
    assert files(folder) == [path]
    hub.cuts, hub.damage, hub.status = 0, False, None
    hub.requests.clear()
    assert get(f"hf:owner/repo@{first}", local_dir=folder) == path
    assert not hub.requests
    assert get(f"hf:owner/repo@{second}", local_dir=folder).read_bytes() == OTHER


def test_local_dir_offline_with_another_commit(hub, get, error, tmp_path):
    """The older file is no answer to a question for one commit, but is one to a question for a branch."""
    get(
        "hf:owner/repo@" + hub.commit("owner/repo", {"weights.safetensors": DATA}),
        local_dir=tmp_path,
    )
    second = hub.commit("owner/repo", {"weights.safetensors": OTHER})
    assert "HF_HUB_OFFLINE" in error(
        f"hf:owner/repo@{second}", local_dir=tmp_path, HF_HUB_OFFLINE="1"
    )
    assert get("hf:owner/repo", local_dir=tmp_path, HF_HUB_OFFLINE="1").read_bytes() == DATA


def test_local_dir_with_a_file_changed_afterwards(hub, get, tmp_path):
    commit = hub.commit("owner/repo", {"weights.safetensors": DATA})
    path = get(f"hf:owner/repo@{commit}", local_dir=tmp_path / "models")
    path.write_bytes(OTHER)
    os.utime(path, (2e9, 2e9))
    assert get(f"hf:owner/repo@{commit}", local_dir=tmp_path / "models").read_bytes() == DATA


def test_local_dir_that_cannot_be(hub, error, tmp_path):
    hub.commit("owner/repo", {"weights.safetensors": DATA})
    (tmp_path / "file").write_bytes(b"")
    assert "cannot put hf:owner/repo" in error("hf:owner/repo", local_dir=tmp_path / "file")


# Through the front door, and back up.


def run_python(code, *arguments, env):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_load_from_the_hub(hub, home, tmp_path, tiny_config):
    checkpoint.save(tmp_path / "w.safetensors", SCSNet(tiny_config))
    hub.commit("owner/repo", {"weights.safetensors": (tmp_path / "w.safetensors").read_bytes()})
    code = """
import sys
sys.path.append(sys.argv[1])
from scsnet import checkpoint
assert "huggingface_hub" not in sys.modules
print(checkpoint.load("hf:owner/repo").config.width)
"""
    assert int(run_python(code, ROOT, env=environment(hub.url, home))) == tiny_config.width


def test_server_takes_uploads(hub, home, get, tmp_path):
    """The other half of the server, which the tests of publishing stand on."""
    (tmp_path / "w.safetensors").write_bytes(DATA)
    (tmp_path / "README.md").write_text("# Card")
    code = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("owner/new", exist_ok=True)
api.create_repo("owner/new", exist_ok=True)
info = api.upload_folder(repo_id="owner/new", folder_path=sys.argv[1], allow_patterns=["*.safetensors", "*.md"])
api.create_tag("owner/new", tag="v1")
print(info.oid, api.model_info("owner/new").sha, api.repo_info("owner/new", revision="v1").sha)
print(*api.list_repo_files("owner/new"))
"""
    hub.write_token = "writer"
    env = environment(hub.url, home, HF_TOKEN="writer", HF_HUB_DISABLE_XET="1")
    commits, names = run_python(code, tmp_path, env=env).splitlines()
    assert len(set(commits.split())) == 1
    assert names.split() == ["README.md", "w.safetensors"]
    assert isinstance(hub.repos["owner/new"], Repo)
    assert get("hf:owner/new/w.safetensors@v1").read_bytes() == DATA


def test_a_file_without_a_known_hash_is_reported(tmp_path, caplog):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"x")
    assert _matches(path, "W/1234", None)
    assert "was not checked" in caplog.text
    caplog.clear()
    assert not _matches(path, "0" * 64, None)
    assert caplog.text == ""
