"""A local server that speaks the Hugging Face Hub's protocol, for tests with the real client.

with HubServer() as hub:
    commit = hub.commit("owner/repo", {"weights.safetensors": data})
    ...  # a client with HF_ENDPOINT = hub.url
    hub.requests  # ["/owner/repo/resolve/main/weights.safetensors", ...]
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class HubServer(ThreadingHTTPServer):
    """Attributes with the names of faults switch them on; `requests`: the paths of GET and HEAD."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.storage = f"http://localhost:{self.server_port}"  # for the client another host
        self.repos = {}  # repository -> branch or commit -> commit
        self.files = {}  # commit -> path -> bytes
        self.stored = {}  # SHA-256 -> bytes
        self.requests = []
        self.gated = set()  # repositories there for everyone to see, but not to read
        self.lfs = True  # files are kept in Git LFS, which states their SHA-256
        self.status = None  # every answer has this status instead
        self.cut = False  # downloads end before their first byte
        self.damage = False  # downloads have other bytes than those asked for
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def server_close(self):
        self.shutdown()
        super().server_close()

    def commit(self, repo, files):
        """Add files (path -> bytes) to the main branch of a repository, made if need be; return the commit."""
        revisions = self.repos.setdefault(repo, {})
        content = self.files.get(revisions.get("main"), {}) | files
        self.stored |= {sha256(data): data for data in content.values()}
        commit = hashlib.sha1(repr((repo, content)).encode()).hexdigest()
        revisions |= {"main": commit, commit: commit}
        self.files[commit] = content
        return commit


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        hub = self.server
        hub.requests.append(self.path)
        if hub.status:
            self.answer(hub.status, b"out of order", {"Retry-After": "0"})
        elif match := re.fullmatch("/stored/(.+)", self.path):
            self.send_stored(hub.stored[match[1]])
        elif match := re.fullmatch("/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path):
            self.resolve(*match.groups())

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self):
        """Make a repository, and a commit to one."""
        hub, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            repo = "{organization}/{name}".format(**json.loads(body))
            self.answer_json({"url": f"{hub.url}/{repo}", "name": repo})
        elif self.path == "/api/validate-yaml":
            self.answer_json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            how = {"uploadMode": "regular", "shouldIgnore": False}
            self.answer_json({"files": [file | how for file in json.loads(body)["files"]]})
        elif match := re.fullmatch("/api/models/(.+)/commit/main", self.path):
            operations = map(json.loads, body.splitlines())
            added = [o["value"] for o in operations if o["key"] == "file"]
            files = {file["path"]: base64.b64decode(file["content"]) for file in added}
            commit = hub.commit(match[1], files)
            url = f"{hub.url}/{match[1]}/commit/{commit}"
            self.answer_json({"success": True, "commitOid": commit, "commitUrl": url})

    def answer(self, status, body=b"", headers=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, content):
        self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def refuse(self, status, code):
        self.answer(status, b"", {"X-Error-Code": code})

    def resolve(self, repo, revision, path):
        """Answer where a file is, and its hash."""
        hub = self.server
        if repo not in hub.repos:
            return self.refuse(401, "RepoNotFound")  # also for private ones
        if repo in hub.gated:
            return self.refuse(401, "GatedRepo")
        commit = hub.repos[repo].get(revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        headers = {"X-Repo-Commit": commit}
        data = hub.files[commit].get(path)
        if data is None:
            return self.answer(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        if not hub.lfs:
            return self.answer(200, data, headers | {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
        headers["Location"] = f"{hub.storage}/stored/{sha256(data)}"
        headers["X-Linked-ETag"] = f'"{sha256(data)}"'
        headers["X-Linked-Size"] = str(len(data))
        return self.answer(302, b"", headers)

    def send_stored(self, data):
        hub = self.server
        if hub.damage:
            data = data[::-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if hub.cut:
            self.close_connection = True
        else:
            self.wfile.write(data)
