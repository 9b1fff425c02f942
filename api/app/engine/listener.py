"""LISTEN on a connection of its own, for as long as anybody wants to hear."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from procrastinate.connector import Notify
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 10.0
"""After this long without a notification the listener says something to itself, and must hear it."""
ECHO = "runledger_echo"
LONGEST_PAUSE_SECONDS = 2.0

_Notification = tuple[str, str]


class Listener:
    """Hears the notifications of some channels. Reconnects by itself; what it missed it cannot know.

    `timeout` bounds, in seconds, connecting and every question to the server.
    """

    def __init__(self, engine: AsyncEngine, channels: Sequence[str], *, timeout: float) -> None:
        self._engine = engine
        self._channels = channels
        self._timeout = timeout
        self.is_deaf = False
        """Whether it has broken off, and heard nothing since, not even itself."""

    async def run(self, on_notification: Notify, on_listening: Callable[[], Awaitable[None]] | None = None) -> None:
        """Deliver notifications until cancelled.

        A callback that raises is logged and does not end the listening: anybody who can connect can NOTIFY.

        Args:
            on_listening: called each time that listening begins, also after a gap.
        """
        failures = 0
        while True:
            try:
                async with self._connected() as inbox:
                    failures = 0
                    if on_listening:
                        await on_listening()
                    await self._deliver(inbox, on_notification)
            except Exception as error:  # noqa: BLE001 - whatever it is, somebody still wants to hear
                failures += 1
                self.is_deaf = True
                logger.warning("Listening on %s broke off, trying again: %r", ", ".join(self._channels), error)
                await asyncio.sleep(random.uniform(0, min(LONGEST_PAUSE_SECONDS, 0.1 * 2**failures)))

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncGenerator[_Inbox]:
        async with asyncio.timeout(self._timeout):
            connection = await self._engine.connect()
        try:
            async with asyncio.timeout(self._timeout):
                inbox = await self._listen(connection)
            yield inbox
        finally:
            await connection.close()

    async def _listen(self, connection: AsyncConnection) -> _Inbox:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        # Its own connection, not the pool's: it is never given back.
        await connection.run_sync(lambda sync: sync.detach())
        inbox = _Inbox(driver, self._timeout)
        driver.add_termination_listener(inbox.close)
        for channel in self._channels:
            await driver.add_listener(channel, inbox.put)
        await driver.add_listener(inbox.echo, inbox.put)
        return inbox

    async def _deliver(self, inbox: _Inbox, on_notification: Notify) -> None:
        while True:
            channel, payload = await inbox.get()
            self.is_deaf = False
            if channel == inbox.echo:
                continue
            try:
                await on_notification(channel=channel, payload=payload)
            except Exception:
                logger.exception("A notification on %s was not understood", channel)


class _Inbox:
    """What was heard and not yet delivered; a silent connection must let an echo through."""

    def __init__(self, driver: Any, timeout: float) -> None:
        self.echo = f"{ECHO}_{driver.get_server_pid()}"
        self._driver = driver
        self._timeout = timeout
        self._heard: asyncio.Queue[_Notification | None] = asyncio.Queue()

    def put(self, _driver: Any, _pid: int, channel: str, payload: Any) -> None:
        self._heard.put_nowait((channel, str(payload)))

    def close(self, _driver: Any) -> None:
        self._heard.put_nowait(None)

    async def get(self) -> _Notification:
        """The next notification, or after a while of silence the echo."""
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                notification = await self._heard.get()
        except TimeoutError:
            # A connection may answer and yet deliver nothing: behind a pooler, LISTEN is another's.
            await self._driver.execute(f"NOTIFY {self.echo}", timeout=self._timeout)
            async with asyncio.timeout(self._timeout):
                notification = await self._heard.get()
        if notification is None:
            raise ConnectionResetError("the server closed the connection")
        return notification
