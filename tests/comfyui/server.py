"""A real ComfyUI in a folder of its own, and what tests say to it over HTTP and WebSocket."""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from urllib.parse import urlencode

from websockets.sync.client import connect

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
ENDS = ("execution_success", "execution_error", "execution_interrupted")
FOLDERS = ("custom_nodes", "input", "output", "temp", "user", "models/scsnet")


def comfy_path():
    """COMFYUI_PATH, else where comfy-cli installs it."""
    return Path(os.environ.get("COMFYUI_PATH") or "~/comfy/ComfyUI").expanduser()


def comfy_python():
    """COMFYUI_PYTHON, else comfy-cli's own environment, else this Python."""
    own = Path("~/comfy/venv/bin/python").expanduser()
    return os.environ.get("COMFYUI_PYTHON") or str(own if own.is_file() else sys.executable)


class StatusError(RuntimeError):
    """An answer that is not 200."""


class Server:
    """ComfyUI on the CPU with these packs, {folder name: folder}, linked in; a context manager."""

    def __init__(self, base, packs, *, arguments=(), environment=None):
        self.base, self.arguments, self.environment = base, [*arguments], environment or {}
        if frontend := os.environ.get("COMFYUI_FRONTEND"):  # instead of the installed one
            self.arguments = ["--front-end-root", frontend, *self.arguments]
        for folder in FOLDERS:
            (base / folder).mkdir(parents=True, exist_ok=True)
        for name, pack in packs.items():
            (base / "custom_nodes" / name).symlink_to(pack, target_is_directory=True)
        self.log_path = base / "server.log"

    def __enter__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [
            comfy_python(), "-u", "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(self.port),
            "--base-directory", str(self.base), "--user-directory", str(self.base / "user"),
            "--database-url", "sqlite:///:memory:", "--disable-api-nodes", "--disable-auto-launch", "--log-stdout",
            *self.arguments,
        ]  # fmt: skip
        environment = {
            **os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1",
            "PYTHONDONTWRITEBYTECODE": "1", **self.environment,
        }  # fmt: skip
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=comfy_path(), env=environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_as_our_child,
            )  # fmt: skip
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def _wait_until_ready(self):
        end = time.monotonic() + 180
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI exited: {self.process.returncode}\n{self.log()}")
            try:
                arguments = self.get("/system_stats", timeout=2)["system"]["argv"]
            except (OSError, StatusError):
                time.sleep(0.1)
                continue
            assert str(self.base) in arguments, "another server answers on our port"
            return
        raise TimeoutError(f"ComfyUI is not ready\n{self.log()}")

    def stop(self):
        """Send SIGINT, as Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        shutil.rmtree(self.base / "temp", ignore_errors=True)

    def __exit__(self, *_):
        self.stop()

    def log(self):
        """The last of what the server has printed."""
        return self.log_path.read_text("utf-8", "replace")[-8000:]

    def memory(self, name="VmRSS"):
        """Memory in use, or VmHWM, the most that was in use since the start; MiB (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) / 1024

    def raw(self, path, data=None, timeout=60):
        """Body of the answer to GET, or to POST where there is data."""
        body = None if data is None else json.dumps(data).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        try:
            with _OPENER.open(request, timeout=timeout) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            body = error.read().decode("utf-8", "replace")
            raise StatusError(f"HTTP {error.code}: {body[:2000]}") from None

    def get(self, path, timeout=60):
        """JSON of a GET."""
        return json.loads(self.raw(path, timeout=timeout))

    def post(self, path, data):
        """JSON of a POST."""
        body = self.raw(path, data)
        return json.loads(body) if body else None

    def queue(self, prompt, client=None):
        """Start a prompt in API form; its id. StatusError for one that is refused, AssertionError for a part of it."""
        answer = self.post("/prompt", {"prompt": prompt, "client_id": client or uuid.uuid4().hex})
        assert answer["node_errors"] == {}, answer
        return answer["prompt_id"]

    def wait(self, prompt_id, timeout=120):
        """The history of a prompt once it has ended, whichever way."""
        start = now = time.monotonic()
        while now < start + timeout:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            assert self.process.poll() is None, f"ComfyUI died\n{self.log()}"
            # Asking costs CPU time that the nodes need.
            time.sleep(min(1.0, max(0.02, (now - start) / 20)))
            now = time.monotonic()
        raise TimeoutError(f"{prompt_id}\n{self.log()}")

    def run(self, prompt, timeout=120):
        """The outputs {node: ...} of a prompt that must succeed."""
        history = self.wait(self.queue(prompt), timeout)
        assert history["status"]["status_str"] == "success", messages(history)
        return history["outputs"]

    def watch(self, prompt, timeout=60):
        """Run a prompt and yield (kind, data) of each message; the last one says how it ended."""
        with connect(f"ws://127.0.0.1:{self.port}/ws?clientId=watcher", proxy=None) as events:
            self.queue(prompt, "watcher")
            kind = None
            while kind not in ENDS:
                message = events.recv(timeout=timeout)
                if not isinstance(message, bytes):  # those are previews
                    kind, data = (json.loads(message)[key] for key in ("type", "data"))
                    yield kind, data

    def fail(self, prompt):
        """The execution_error of a prompt that must fail."""
        return messages(self.wait(self.queue(prompt)))["execution_error"]

    def interrupt(self, prompt_id):
        """Interrupt a running prompt; returns the seconds from the request to its end."""
        requested = time.time()
        self.post("/interrupt", {})
        found = messages(self.wait(prompt_id))
        assert "execution_interrupted" in found, f"not interrupted: {list(found)}"
        return found["execution_interrupted"]["timestamp"] / 1000 - requested

    def view(self, file):
        """A file that an output names."""
        return self.raw(
            "/view?" + urlencode({k: file[k] for k in ("filename", "subfolder", "type")})
        )

    def forget(self):
        """Empty ComfyUI's caches: everything runs again."""
        self.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(0.6)


def messages(history):
    """What ComfyUI said of a prompt: {execution_start, execution_cached, execution_success or ..._error or ..._interrupted: data}."""
    return dict(history["status"]["messages"])


def cached(history):
    """Nodes whose results came from the cache."""
    return set(messages(history)["execution_cached"]["nodes"])


def _as_our_child():
    """In the new process: obey SIGINT, which a shell's & makes it ignore; and end when we end (Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
