"""A receiver of webhooks on a socket of loopback, which answers what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook
from tests.support.eventually import eventually

HANG = 0
"""In the place of a status: no answer at all."""


@dataclass(frozen=True)
class Received:
    """One request."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """The event, if the secret has signed it."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """What it got, and what it answers: one status a request, and the last one from then on."""

    statuses: list[int]
    headers: dict[str, str]
    url: str = ""
    got: list[Received] = field(default_factory=list)
    open: int = 0
    most_open: int = 0

    async def gets(self, count: int) -> list[Received]:
        """Wait until it has got so many requests."""

        async def enough() -> bool:
            return len(self.got) >= count

        await eventually(enough)
        return self.got

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = head.strip().split("\r\n")[1:]
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
            with self._counted():
                status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
                self.got.append(Received(headers, body))
                if status == HANG:
                    # Until whoever asked has gone away.
                    await reader.read()
                    return
                extra = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n{extra}\r\n".encode())
                await writer.drain()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            yield
        finally:
            self.open -= 1


@contextlib.asynccontextmanager
async def receiver(*statuses: int, **headers: str) -> AsyncIterator[Receiver]:
    """A receiver that listens until the end of the block; `Retry_After="9"` is a header of its answers."""
    made = Receiver(list(statuses) or [200], {name.replace("_", "-"): value for name, value in headers.items()})
    serving: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(made.serve(reader, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"
    try:
        yield made
    finally:
        server.close()
        await asyncio.gather(*serving)
