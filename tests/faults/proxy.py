"""A TCP proxy before PostgreSQL that can freeze, cut, refuse, and lose an answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from sqlalchemy import URL

Happened = Callable[[], Awaitable[bool]]
ANSWERED_WITHIN = 1.0


class Proxy:
    """Forwards bytes, until told otherwise."""

    def __init__(self, target: URL) -> None:
        self._target = target
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._wires: set[_Wire] = set()
        self._loss: _Loss | None = None
        self._port = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def before(cls, target: URL) -> AsyncGenerator[Proxy]:
        """Serve on a free port of loopback until the end of the block."""
        proxy = cls(target)
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy._port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            proxy.thaw()
            while proxy._wires:
                proxy.cut()
                await asyncio.sleep(0)

    @property
    def url(self) -> str:
        """Where it listens, with the target's database and user."""
        return self._target.set(host="127.0.0.1", port=self._port).render_as_string(hide_password=False)

    def freeze(self) -> None:
        """Packets are dropped: nothing arrives, nothing is reset."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def refuse(self, refusing: bool = True) -> None:
        self._refusing = refusing

    def cut(self) -> None:
        """Reset every connection."""
        for wire in list(self._wires):
            wire.abort()

    def lose_answer(self, happened: Happened) -> asyncio.Event:
        """Let the next message that makes `happened` true reach the server, lose its answer, reset that connection.

        Until then one message at a time is under way, so that it is known which one did it.

        Returns:
            Set when the answer was lost.
        """
        self._loss = _Loss(happened)
        return self._loss.done

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        await self._flowing.wait()
        try:
            upstream = await asyncio.open_connection(self._target.host, self._target.port)
        except OSError:
            writer.transport.abort()
            return
        wire = _Wire(self, (reader, writer), upstream)
        self._wires.add(wire)
        try:
            await wire.run()
        finally:
            wire.abort()
            self._wires.discard(wire)


class _Loss:
    def __init__(self, happened: Happened) -> None:
        self.happened = happened
        self.one_at_a_time = asyncio.Lock()
        self.done = asyncio.Event()


class _Wire:
    """One client's connection and the server's."""

    def __init__(
        self,
        proxy: Proxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._answered: asyncio.Future[bytes] | None = None

    async def run(self) -> None:
        there = asyncio.create_task(self._requests())
        back = asyncio.create_task(self._answers())
        await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        for task in (there, back):
            task.cancel()
        await asyncio.gather(there, back, return_exceptions=True)

    def abort(self) -> None:
        for _, writer in (self._client, self._server):
            writer.transport.abort()

    async def _requests(self) -> None:
        while data := await self._client[0].read(65536):
            await self._proxy._flowing.wait()
            loss = self._proxy._loss
            if loss is None or data[:1] == b"X":
                self._server[1].write(data)
            elif await self._watched(loss, data):
                return

    async def _watched(self, loss: _Loss, data: bytes) -> bool:
        """Whether this message did it."""
        async with loss.one_at_a_time:
            before = loss.done.is_set() or await loss.happened()
            self._answered = asyncio.get_running_loop().create_future()
            self._server[1].write(data)
            try:
                answer = await asyncio.wait_for(self._answered, ANSWERED_WITHIN)
            except TimeoutError:
                return False
            finally:
                self._answered = None
            if not before and await loss.happened():
                self._proxy._loss = None
                loss.done.set()
                return True
            self._client[1].write(answer)
            return False

    async def _answers(self) -> None:
        while data := await self._server[0].read(65536):
            await self._proxy._flowing.wait()
            if self._answered is not None and not self._answered.done():
                self._answered.set_result(data)
            else:
                self._client[1].write(data)
