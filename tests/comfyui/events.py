"""ComfyUI's websocket, read only: what a browser is told while a prompt runs. Standard library only."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

_TEXT, _CLOSE, _PING = 1, 8, 9


class Events:
    """Iterates over (type, data) of the messages to one client; a context manager. TimeoutError after 60 s of silence."""

    def __init__(self, port: int, client: str) -> None:
        self.link = socket.create_connection(("127.0.0.1", port), timeout=60)
        key = base64.b64encode(os.urandom(16)).decode()
        self.link.sendall(
            f"GET /ws?clientId={client} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.stream = self.link.makefile("rb")
        status = self.stream.readline()
        assert b" 101 " in status, status
        while self.stream.readline() != b"\r\n":
            pass

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.link.close()

    def _frame(self) -> tuple[bool, int, bytes]:
        """Whether it ends a message, its kind, its content (RFC 6455, section 5.2; servers do not mask)."""
        first, length = self.stream.read(2)
        if length == 126:
            length = int.from_bytes(self.stream.read(2), "big")
        elif length == 127:
            length = int.from_bytes(self.stream.read(8), "big")
        return bool(first & 0x80), first & 0x0F, self.stream.read(length)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        kind, content = 0, b""
        while True:
            last, opcode, part = self._frame()
            if opcode == _CLOSE:
                return
            if opcode >= _CLOSE:
                assert opcode == _PING, opcode
                continue
            kind, content = (opcode or kind), (content if opcode == 0 else b"") + part
            if last and kind == _TEXT:
                message = json.loads(content)
                yield message["type"], message.get("data")
