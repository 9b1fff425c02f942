"""Sends one request over and over, on connections that stay open. usage: load.py PORT PATH CONNECTIONS SECONDS < body

Written for one purpose, so that the process under load is the one that works hardest: the bytes of the request are made
once, and of each answer only its status and its length are read.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import cast

import uvloop
from typing_extensions import override

WARM_UP_SECONDS = 1.0
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """One client, which asks again as soon as it is answered."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._answer = b""
        self.answered = 0
        self.refused: bytes | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(self._request)

    @override
    def data_received(self, data: bytes) -> None:
        self._answer += data
        head = self._answer.find(b"\r\n\r\n")
        length = _LENGTH.search(self._answer, 0, head) if head > 0 else None
        if length is None or len(self._answer) < head + 4 + int(length[1]):
            return
        if not self._answer.startswith(b"HTTP/1.1 202"):
            self.refused = self._answer
        self._answer = b""
        self.answered += 1
        self._transport.write(self._request)


async def main(port: str, path: str, connections: str, seconds: str) -> None:
    body = sys.stdin.buffer.read()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    request = head.encode() + b"\r\n\r\n" + body
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Connection(request), "127.0.0.1", int(port)))[1]
        for _ in range(int(connections))
    ]
    await asyncio.sleep(WARM_UP_SECONDS)
    before, began = sum(client.answered for client in clients), time.perf_counter()
    await asyncio.sleep(float(seconds))
    answered, took = sum(client.answered for client in clients) - before, time.perf_counter() - began
    if refused := next((client.refused for client in clients if client.refused), None):
        raise SystemExit(refused.decode())
    print(json.dumps({"rate": answered / took}))


uvloop.run(main(*sys.argv[1:]))
