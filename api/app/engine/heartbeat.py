"""The heartbeat: a worker says that it lives, and knows since when it could."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NoReturn

from app.engine import queries
from app.engine.link import Link
from app.engine.queries import AboutWorker


class Heartbeat:
    """Beats every `interval` seconds over a link of its own.

    After an outage every worker looks dead, the living too. So who could not beat himself judges nobody, until the
    others have had a lease of time to beat again.
    """

    def __init__(
        self, link: Link, about: AboutWorker, *, interval: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._link = link
        self._about = about
        self._interval = interval
        self._clock = clock
        self._last_beat = clock()
        self._last_gap_ended: float | None = None

    async def run(self, worker_id: int) -> NoReturn:
        """Beat until cancelled.

        Raises:
            ConnectorException: the database did not take a beat.
        """
        while True:
            await self.beat(worker_id)
            await asyncio.sleep(self._interval)

    async def beat(self, worker_id: int) -> None:
        """Say that this worker lives, and note when the database has heard it."""
        await queries.beat(self._link, worker_id=worker_id, about=self._about)
        if self._is_late():
            self._last_gap_ended = self._clock()
        self._last_beat = self._clock()

    def may_judge(self, lease: float) -> bool:
        """Whether this worker may take another for dead that has not been heard of for `lease` seconds."""
        if self._is_late():
            return False
        return self._last_gap_ended is None or self._clock() - self._last_gap_ended > lease

    def _is_late(self) -> bool:
        return self._clock() - self._last_beat > 2 * self._interval
