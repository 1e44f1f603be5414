"""A local server that speaks the Hugging Face Hub's protocol, for tests with the real client.

Two origins, as in reality: the Hub (names, hashes, small files, commits) and a file store to which it
redirects for large files. Faults can be switched on; every request is noted.

    with HubServer() as hub:
        commit = hub.commit("owner/repo", {"weights.safetensors": data})
        ...  # a client with HF_ENDPOINT = hub.url
        hub.requests  # [Request(server="hub", method="HEAD", ...), ...]
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".png", ".jpg")  # endings that the Hub keeps in its file store


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Request:
    server: str  # "hub" or "store"
    method: str
    path: str
    range: str | None


@dataclass
class Repo:
    commits: dict = field(default_factory=dict)  # commit -> {path: bytes}
    refs: dict = field(default_factory=dict)  # branch or tag -> commit
    token: str | None = None  # needed to see the repository
    gated: bool = False  # there for everyone to see, but not to read


class HubServer:
    """url: the endpoint. Faults: see the attributes; all off at first."""

    def __init__(self):
        self.repos = {}
        self.store = {}  # sha256 -> bytes, large files
        self.requests = []
        self.status = None  # every answer has this status instead
        self.heads_left = None  # after so many HEAD requests every answer to one is 500
        self.cut_at = None  # answers of the store end after so many bytes ...
        self.cuts = 0  # ... so many times
        self.damage = False  # the store sends bytes other than those it is asked for
        self._servers = [self._start("hub", _Hub), self._start("store", _Store)]
        self.url, self.store_url = (
            f"http://127.0.0.1:{server.server_port}" for server in self._servers
        )

    def _start(self, name, handler):
        handler = type(name, (handler,), {"hub": self, "name": name})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        options = {"poll_interval": 0.02}
        threading.Thread(target=server.serve_forever, kwargs=options, daemon=True).start()
        return server

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def commit(self, repo, files, ref="main", **options):
        """Adds files (path -> bytes) to a repository, made if need be; returns the commit."""
        repository = self.repos.setdefault(repo, Repo())
        for name, value in options.items():
            setattr(repository, name, value)
        content = {**repository.commits.get(repository.refs.get(ref), {}), **files}
        self.store.update((sha256(data), data) for data in content.values())
        text = repr(sorted((path, sha256(data)) for path, data in content.items())) + repo
        commit = hashlib.sha1(text.encode()).hexdigest()
        repository.commits[commit] = content
        repository.refs[ref] = commit
        return commit


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer
    name: str

    def log_message(self, *_):
        pass

    def handle_any(self):
        authorization = self.headers.get("Authorization") or ""
        self.token = authorization.removeprefix("Bearer ") or None
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.route = unquote(urlsplit(self.path).path)
        self.hub.requests.append(
            Request(self.name, self.command, self.route, self.headers.get("Range"))
        )
        status = self.hub.status
        if self.command == "HEAD" and self.hub.heads_left is not None:
            self.hub.heads_left -= 1
            status = 500 if self.hub.heads_left < 0 else status
        if status:
            self.answer(status, b"out of order", {"Retry-After": "0"})
        else:
            self.respond()

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

    def answer(self, status, body=b"", headers=None):
        self.send_response(HTTPStatus(status))
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, content):
        self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def refuse(self, status, code, message, **headers):
        self.answer(status, b"", {"X-Error-Code": code, "X-Error-Message": message, **headers})


class _Store(_Handler):
    """Files by their sha256; GET with ranges, PUT."""

    def respond(self):
        oid = self.route.strip("/")
        if self.command == "PUT":
            self.hub.store[oid] = self.body
            return self.answer(200)
        data = self.hub.store[oid]
        if self.hub.damage:
            data = bytes(byte ^ 0x55 for byte in data)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        first = int(asked[1]) if asked else 0
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(data) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.hub.cuts:
            self.hub.cuts -= 1
            data = data[: first + self.hub.cut_at]
            self.close_connection = True
        return self.wfile.write(data[first:])


class _Hub(_Handler):
    """Everything but the bytes of large files."""

    def respond(self):
        routes = (
            (r"/api/repos/create", self.create),
            (r"/api/validate-yaml", lambda: self.json({"errors": [], "warnings": []})),
            (r"/api/models/([^/]+/[^/]+)/preupload/.+", self.preupload),
            (r"/api/models/([^/]+/[^/]+)/commit/(.+)", self.receive),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.batch),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
        )
        for pattern, method in routes:
            if match := re.fullmatch(pattern, self.route):
                return method(*match.groups())
        return self.answer(404, b"no such route")

    def resolve(self, name, revision, path):
        repo = self.hub.repos.get(name)
        if repo is None or (repo.token and repo.token != self.token):
            # To somebody unknown the Hub does not say which of the two it is.
            return self.refuse(404 if self.token else 401, "RepoNotFound", "Repository not found")
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if repo.gated:
            return self.refuse(401, "GatedRepo", "Access to this model is restricted")
        if path not in repo.commits[commit]:
            return self.refuse(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit})
        data = repo.commits[commit][path]
        headers = {"ETag": f'"{git_sha1(data)}"', "X-Repo-Commit": commit}
        if not path.endswith(LARGE):
            return self.answer(200, data, headers)
        headers |= {
            "Location": f"{self.hub.store_url}/{sha256(data)}",
            "X-Linked-ETag": f'"{sha256(data)}"',
            "X-Linked-Size": str(len(data)),
        }
        return self.answer(302, b"", headers)

    # Uploads.

    def create(self):
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        self.hub.commit(name, {})
        self.json({"url": f"{self.hub.url}/{name}", "name": name})

    def preupload(self, name):
        def mode(path):
            return "lfs" if path.endswith(LARGE) else "regular"

        paths = [file["path"] for file in json.loads(self.body)["files"]]
        self.json(
            {"files": [{"path": p, "uploadMode": mode(p), "shouldIgnore": False} for p in paths]}
        )

    def batch(self, name):
        objects = json.loads(self.body)["objects"]
        for entry in objects:
            if entry["oid"] not in self.hub.store:
                entry["actions"] = {"upload": {"href": f"{self.hub.store_url}/{entry['oid']}"}}
        self.json({"transfer": "basic", "objects": objects})

    def receive(self, name, revision):
        """A commit: lines of JSON, each an operation."""
        files = {}
        for operation in map(json.loads, self.body.splitlines()):
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.store[value["oid"]]
        commit = self.hub.commit(name, files, ref=revision)
        url = f"{self.hub.url}/{name}/commit/{commit}"
        self.json({"success": True, "commitOid": commit, "commitUrl": url})
