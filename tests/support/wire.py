"""Requests as bytes, to a real server over a socket: what no HTTP client would send."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What came back before the server closed the connection; `status` 0: it closed without a word."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document that it is."""
        assert self.headers.get("content-type") == "application/problem+json", self.raw
        problem = json.loads(self.body)
        assert problem["status"] == self.status
        assert problem["title"]
        return problem


def request(
    method: str, target: str, *headers: str, body: bytes | None = None, host: str | None = "127.0.0.1"
) -> bytes:
    """A request that asks to close the connection after the answer."""
    lines = [f"{method} {target} HTTP/1.1", *([f"Host: {host}"] if host is not None else []), "Connection: close"]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, *headers]).encode("latin-1") + b"\r\n\r\n" + (body or b"")


async def send(port: int, *parts: bytes, within: float = 20) -> Answer:
    """Send bytes, and read until the server closes the connection."""
    async with asyncio.timeout(within):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        reading = asyncio.create_task(_read(reader))
        with contextlib.suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
        raw = await reading
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return _parse(raw)


async def _read(reader: asyncio.StreamReader) -> bytes:
    raw = b""
    with contextlib.suppress(ConnectionError):
        while received := await reader.read(65536):
            raw += received
    return raw


def _parse(raw: bytes) -> Answer:
    if not raw:
        return Answer(0, {}, b"", raw)
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    if headers.get("transfer-encoding") == "chunked":
        body = _joined(body)
    return Answer(int(first.split()[1]), headers, body, raw)


def _joined(chunked: bytes) -> bytes:
    joined = b""
    while chunked:
        size, _, rest = chunked.partition(b"\r\n")
        joined, chunked = joined + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return joined
