"""A small local server that speaks the Hugging Face Hub's protocol, for tests with the real client.

Two origins, as in reality: the Hub (names, hashes, small files, commits) and a file store to which it
redirects for large files, without the token. Faults can be switched on; every request is noted.

    with HubServer() as hub:
        commit = hub.commit("owner/repo", {"weights.safetensors": data})
        ...  # a client with HF_ENDPOINT = hub.url
        hub.requests  # [Request(server="hub", method="HEAD", path=..., token=...), ...]
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

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
    token: str | None
    range: str | None


@dataclass
class Repo:
    commits: dict = field(default_factory=dict)  # commit -> {path: bytes}
    refs: dict = field(default_factory=dict)  # branch or tag -> commit
    messages: dict = field(default_factory=dict)  # commit -> summary
    token: str | None = None  # needed to see the repository
    gated: bool = False  # there for everyone to see, but not to read


class HubServer:
    """url: the endpoint. Faults: see the attributes; all off at first."""

    def __init__(self):
        self.repos = {}
        self.store = {}  # sha256 -> bytes, large files
        self.requests = []
        self.status = None  # every answer has this status instead
        self.cut_at = None  # answers of the store end after so many bytes ...
        self.cuts = 0  # ... so many times
        self.damage = False  # the store sends bytes other than those it is asked for
        self.no_range = False  # the store ignores Range
        self.write_token = None  # needed for uploads
        self._servers = [self._start("hub", _Hub), self._start("store", _Store)]
        self.url, self.store_url = (
            f"http://127.0.0.1:{server.server_port}" for server in self._servers
        )

    def _start(self, name, handler):
        server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type(name, (handler,), {"hub": self, "name": name})
        )
        server.daemon_threads = True
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return server

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def commit(self, repo, files, ref="main", message="", **options):
        """Adds files (path -> bytes, None deletes) to a repository, made if need be; returns the commit."""
        repository = self.repos.setdefault(repo, Repo())
        for name, value in options.items():
            setattr(repository, name, value)
        content = {**repository.commits.get(repository.refs.get(ref), {}), **files}
        content = {path: data for path, data in content.items() if data is not None}
        self.store.update((sha256(data), data) for data in content.values())
        text = repr(sorted((path, sha256(data)) for path, data in content.items())) + repo + message
        commit = hashlib.sha1(text.encode()).hexdigest()
        repository.commits[commit] = content
        repository.messages[commit] = message
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
        parts = urlsplit(self.path)
        self.route, self.query = unquote(parts.path), parse_qs(parts.query)
        self.hub.requests.append(
            Request(self.name, self.command, self.route, self.token, self.headers.get("Range"))
        )
        if self.hub.status:
            return self.answer(self.hub.status, b"out of order", {"Retry-After": "0"})
        return self.respond()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

    def answer(self, status, body=b"", headers=None):
        self.send_response(HTTPStatus(status))
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, content, status=200):
        self.answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def refuse(self, status, code, message, **headers):
        self.answer(status, b"", {"X-Error-Code": code, "X-Error-Message": message, **headers})


class _Store(_Handler):
    """Files by their sha256; GET with ranges, PUT."""

    def respond(self):
        oid = self.route.strip("/")
        if self.command == "PUT":
            self.hub.store[oid] = self.body
            return self.answer(200)
        if oid not in self.hub.store:
            return self.answer(404)
        data = self.hub.store[oid]
        if self.hub.damage:
            data = bytes(byte ^ 0x55 for byte in data)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        first = int(asked[1]) if asked and not self.hub.no_range else 0
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(data) - first))
        self.send_header("ETag", f'"{oid}"')
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return None
        if self.hub.cuts and self.hub.cut_at is not None:
            self.hub.cuts -= 1
            self.wfile.write(data[first : first + self.hub.cut_at])
            self.close_connection = True
            return None
        self.wfile.write(data[first:])
        return None


class _Hub(_Handler):
    """Everything but the bytes of large files."""

    def respond(self):
        routes = (
            (r"/api/repos/create", self.create),
            (r"/api/validate-yaml", self.validate),
            (r"/api/whoami-v2", self.whoami),
            (r"/api/models/([^/]+/[^/]+)/preupload/(.+)", self.preupload),
            (r"/api/models/([^/]+/[^/]+)/commit/(.+)", self.receive),
            (r"/api/models/([^/]+/[^/]+)/tag/(.+)", self.tag),
            (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", self.tree),
            (r"/api/models/([^/]+/[^/]+)/revision/(.+)", self.info),
            (r"/api/models/([^/]+/[^/]+)/refs", self.refs),
            (r"/api/models/([^/]+/[^/]+)", self.info),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.batch),
            (r"/([^/]+/[^/]+)/resolve/((?:refs/[^/]+/)?[^/]+)/(.+)", self.resolve),
        )
        for pattern, method in routes:
            if match := re.fullmatch(pattern, self.route):
                return method(*match.groups())
        return self.answer(404, b"no such route")

    def repository(self, name):
        """The repository, or None when an error was answered instead."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.token and repo.token != self.token):
            # To somebody unknown the Hub does not say which of the two it is.
            self.refuse(404 if self.token else 401, "RepoNotFound", "Repository not found")
            return None
        return repo

    def content(self, name, revision):
        """(commit, files) of a revision, or None when an error was answered instead."""
        repo = self.repository(name)
        if repo is None:
            return None
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return commit, repo.commits[commit]

    def resolve(self, name, revision, path):
        found = self.content(name, revision)
        if found is None:
            return None
        commit, files = found
        if self.hub.repos[name].gated:
            return self.refuse(
                403 if self.token else 401, "GatedRepo", "Access to this model is restricted"
            )
        if path not in files:
            return self.refuse(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit})
        data = files[path]
        if not path.endswith(LARGE):
            etag = f'"{git_sha1(data)}"'
            return self.answer(200, data, {"ETag": etag, "X-Repo-Commit": commit})
        headers = {
            "Location": f"{self.hub.store_url}/{sha256(data)}",
            "ETag": f'"{git_sha1(data)}"',
            "X-Linked-ETag": f'"{sha256(data)}"',
            "X-Linked-Size": str(len(data)),
            "X-Repo-Commit": commit,
        }
        return self.answer(302, b"", headers)

    def info(self, name, revision="main"):
        found = self.content(name, revision)
        if found is None:
            return None
        commit, files = found
        siblings = [{"rfilename": path} for path in sorted(files)]
        return self.json(
            {
                "id": name,
                "modelId": name,
                "sha": commit,
                "siblings": siblings,
                "private": False,
                "tags": [],
            }
        )

    def tree(self, name, revision, folder=None):
        found = self.content(name, revision)
        if found is None:
            return None
        entries = []
        for path, data in sorted(found[1].items()):
            entry = {"type": "file", "path": path, "size": len(data), "oid": git_sha1(data)}
            if path.endswith(LARGE):
                entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
            entries.append(entry)
        return self.json(entries)

    def refs(self, name):
        repo = self.repository(name)
        if repo is None:
            return None
        branches = [
            {"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": c}
            for ref, c in repo.refs.items()
        ]
        return self.json({"branches": branches, "tags": [], "converts": []})

    def allowed(self):
        if self.hub.write_token is not None and self.token != self.hub.write_token:
            self.refuse(401, "", "Invalid username or password.")
            return False
        return True

    def whoami(self):
        return self.allowed() and self.json({"name": "owner", "type": "user", "orgs": []})

    def validate(self):
        return self.json({"errors": [], "warnings": []})

    def create(self):
        if not self.allowed():
            return None
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'owner'}/{asked['name']}"
        if name in self.hub.repos:
            url = f"{self.hub.url}/{name}"
            return self.json(
                {"error": "You already created this model repo", "url": url}, status=409
            )
        self.hub.commit(name, {})
        return self.json({"url": f"{self.hub.url}/{name}", "name": name})

    def preupload(self, name, revision):
        if not self.allowed() or self.repository(name) is None:
            return None
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.body)["files"]
        ]
        return self.json({"files": files})

    def batch(self, name):
        if not self.allowed() or self.repository(name) is None:
            return None
        objects = []
        for asked in json.loads(self.body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.store:
                entry["actions"] = {"upload": {"href": f"{self.hub.store_url}/{asked['oid']}"}}
            objects.append(entry)
        return self.json({"transfer": "basic", "objects": objects})

    def receive(self, name, revision):
        """A commit: lines of JSON, each an operation."""
        if not self.allowed() or self.repository(name) is None:
            return None
        files, message = {}, ""
        for operation in map(json.loads, self.body.splitlines()):
            key, value = operation["key"], operation["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if sha256(self.hub.store.get(value["oid"], b"")) != value["oid"]:
                    return self.json(
                        {"error": "LFS pointer pointed to a file that does not exist"}, status=400
                    )
                files[value["path"]] = self.hub.store[value["oid"]]
            elif key == "deletedFile":
                files[value["path"]] = None
        commit = self.hub.commit(name, files, ref=revision, message=message)
        return self.json(
            {
                "success": True,
                "commitOid": commit,
                "commitUrl": f"{self.hub.url}/{name}/commit/{commit}",
            }
        )

    def tag(self, name, revision):
        found = self.content(name, revision) if self.allowed() else None
        if found is None:
            return None
        tag = json.loads(self.body)["tag"]
        if tag in self.hub.repos[name].refs:
            return self.json({"error": "Reference already exists"}, status=409)
        self.hub.repos[name].refs[tag] = found[0]
        return self.json({})
