"""A server in front of another that answers some requests itself, or loses answers: what a network does to a client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Literal

Answer = bytes | Literal["lost"]
"""What becomes of a request: answered with these bytes, or passed on and its answer thrown away."""


@contextlib.asynccontextmanager
async def detour(port: int, answers: Iterable[Answer]) -> AsyncIterator[str]:
    """The URL of a server that treats the first requests like this, and passes all others on to `port`."""
    planned = iter(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read_request(reader)
        match next(planned, None):
            case bytes() as answer:
                writer.write(answer)
            case "lost":
                await _ask(port, request)
            case None:
                writer.write(await _ask(port, request))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = [int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-len")] or [
        0
    ]
    return head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + await reader.readexactly(length)


async def _ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer
