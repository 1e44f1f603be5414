"""A real ComfyUI in a folder of its own, and what tests say to it over HTTP. Standard library only."""

from __future__ import annotations

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
import urllib.parse
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
FOLDERS = ("custom_nodes", "input", "output", "temp", "user", "models/scsnet")


def comfy_path() -> Path:
    """COMFYUI_PATH, else where comfy-cli installs it."""
    return Path(os.environ.get("COMFYUI_PATH") or "~/comfy/ComfyUI").expanduser()


def comfy_python() -> str:
    """COMFYUI_PYTHON, else comfy-cli's own environment, else this Python."""
    named = os.environ.get("COMFYUI_PYTHON")
    own = Path("~/comfy/venv/bin/python").expanduser()
    return named or (str(own) if own.is_file() else sys.executable)


class StatusError(RuntimeError):
    """An answer that is not 200."""

    def __init__(self, code: int, body: str) -> None:
        super().__init__(f"HTTP {code}: {body[:2000]}")
        self.code, self.body = code, body

    @property
    def json(self) -> Any:
        """The answer's body."""
        return json.loads(self.body)


class Server:
    """ComfyUI on the CPU with these packs, {folder name: folder}, linked in; a context manager."""

    def __init__(
        self, base: Path, packs: dict[str, Path], *, arguments: Sequence[str] = (), environment: dict[str, str] | None = None,
        extra_model_paths: Path | None = None,
    ) -> None:  # fmt: skip
        self.base, self.comfy = base, comfy_path()
        self.arguments = [*arguments]
        if os.environ.get(
            "COMFYUI_FRONTEND"
        ):  # another frontend than the installed one: the folder of its index.html
            self.arguments = ["--front-end-root", os.environ["COMFYUI_FRONTEND"], *self.arguments]
        if extra_model_paths:
            self.arguments = ["--extra-model-paths-config", str(extra_model_paths), *self.arguments]
        self.environment = environment or {}
        for folder in FOLDERS:
            (base / folder).mkdir(parents=True, exist_ok=True)
        for name, pack in packs.items():
            link = base / "custom_nodes" / name
            if not link.is_symlink():
                link.symlink_to(pack, target_is_directory=True)
        self.log_path = base / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        for attempt in range(3):  # a port can be taken between asking for it and using it
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
                    command, cwd=self.comfy, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                    stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_as_our_child,
                )  # fmt: skip
            try:
                self._wait_until_ready()
            except Exception:
                self.stop()
                if "address already in use" not in self.log().lower() or attempt == 2:
                    raise
            else:
                return self
        raise AssertionError

    def _wait_until_ready(self) -> None:
        start = time.monotonic()
        while time.monotonic() < start + 180:
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"ComfyUI exited with {self.process.returncode}\n{self.log()[-8000:]}"
                )
            try:
                arguments = self.get("/system_stats", timeout=2)["system"].get("argv", [])
            except (OSError, StatusError):
                time.sleep(0.1)
                continue
            if str(self.base) not in arguments:
                raise RuntimeError("another server answers on our port: address already in use")
            self.seconds_to_start = time.monotonic() - start
            return
        raise TimeoutError(f"ComfyUI is not ready\n{self.log()[-8000:]}")

    def stop(self) -> None:
        """SIGINT, as Ctrl-C."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        shutil.rmtree(self.base / "temp", ignore_errors=True)

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log(self) -> str:
        """All that the server has printed."""
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    @property
    def version(self) -> str:
        """Of ComfyUI."""
        return self.get("/system_stats")["system"]["comfyui_version"]

    def resident(self) -> float:
        """Memory in use, MiB."""
        return self._memory("VmRSS")

    def peak(self) -> float:
        """The most memory that was in use since the start, MiB."""
        return self._memory("VmHWM")

    def _memory(self, name: str) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) / 1024

    # --- HTTP ---

    def raw(
        self, path: str, data: object = None, timeout: float = 60, method: str | None = None
    ) -> bytes:
        """Body of the answer to GET, or to POST where there is data."""
        body = None if data is None else json.dumps(data).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=body, headers=headers, method=method)
        try:
            with _OPENER.open(request, timeout=timeout) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise StatusError(error.code, error.read().decode("utf-8", "replace")) from None

    def get(self, path: str, timeout: float = 60) -> Any:
        """JSON of a GET."""
        return json.loads(self.raw(path, timeout=timeout))

    def post(self, path: str, data: object) -> Any:
        """JSON of a POST."""
        body = self.raw(path, data)
        return json.loads(body) if body else None

    def queue(self, prompt: dict[str, Any], client: str | None = None) -> str:
        """Start a prompt in API form; its id. StatusError 400 for one that is refused, AssertionError for a part of it."""
        answer = self.post("/prompt", {"prompt": prompt, "client_id": client or uuid.uuid4().hex})
        assert answer["node_errors"] == {}, answer
        return answer["prompt_id"]

    def wait(self, prompt_id: str, timeout: float = 120) -> dict[str, Any]:
        """The history of a prompt once it has ended, whichever way."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI died\n{self.log()[-8000:]}")
            time.sleep(0.02)
        raise TimeoutError(f"{prompt_id}\n{self.log()[-4000:]}")

    def run(self, prompt: dict[str, Any], timeout: float = 120) -> dict[str, Any]:
        """The outputs {node: ...} of a prompt that must succeed."""
        history = self.wait(self.queue(prompt), timeout)
        assert history["status"]["status_str"] == "success", failure(history)
        return history["outputs"]

    def fail(self, prompt: dict[str, Any], timeout: float = 120) -> dict[str, Any]:
        """The execution_error of a prompt that must fail."""
        history = self.wait(self.queue(prompt), timeout)
        assert history["status"]["status_str"] == "error", history["status"]
        return failure(history)

    def view(self, image: dict[str, str]) -> bytes:
        """A file that an output names."""
        return self.raw(
            "/view?"
            + urllib.parse.urlencode({k: image[k] for k in ("filename", "subfolder", "type")})
        )

    def forget(self) -> None:
        """Empty ComfyUI's caches: everything runs again."""
        self.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(0.6)


def failure(history: dict[str, Any]) -> dict[str, Any] | None:
    """The data of the execution_error message; None where there is none."""
    return next(
        (data for kind, data in history["status"]["messages"] if kind == "execution_error"), None
    )


def messages(history: dict[str, Any]) -> list[str]:
    """The kinds of messages of a prompt, in order."""
    return [kind for kind, _ in history["status"]["messages"]]


def cached(history: dict[str, Any]) -> set[str]:
    """Nodes whose results came from the cache."""
    return {
        node
        for kind, data in history["status"]["messages"]
        if kind == "execution_cached"
        for node in data["nodes"]
    }


def _as_our_child() -> None:
    """In the new process: SIGINT works although a shell's & ignores it and hands that on; it never outlives us (Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
