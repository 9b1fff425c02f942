"""Scheduled jobs wait in line from the moment when their time has come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NoReturn

from app.engine import queries

BATCH = 1000
QUIET_POLLS = 5
"""For so many polls nobody looks for jobs that have become due, if none was known to, and no bell has rung."""


class Due:
    """Lets jobs that have become due wait like those that were never scheduled.

    Args:
        poll: seconds between two looks, at the least; at the most too, where no bell rings.
        on_due: told when there were some.
    """

    def __init__(self, link: queries.Database, *, poll: float, hears: bool, on_due: Callable[[], None]) -> None:
        self._link = link
        self._poll = poll
        self._longest = QUIET_POLLS * poll if hears else poll
        self._on_due = on_due
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """A job may have been put in, or been given another time."""
        self._rung.set()

    async def run(self) -> NoReturn:
        """Release jobs when their time comes, for ever."""
        while True:
            self._rung.clear()
            released, seconds = await queries.release_due_jobs(self._link, limit=BATCH)
            if released:
                self._on_due()
            if released < BATCH:
                await self._until_due(seconds)

    async def _until_due(self, seconds: float | None) -> None:
        """Wait until the next job is due, or one may have come that is due earlier; but look at most once a poll."""
        until = self._longest if seconds is None else min(seconds, self._longest)
        await asyncio.sleep(min(until, self._poll))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(until - self._poll):
                await self._rung.wait()
