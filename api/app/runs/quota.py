"""How many runs of one owner may wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from procrastinate.exceptions import ConnectorException

from app.errors import QuotaExceeded

LOOK_AGAIN_SECONDS = 1.0
SHARE = 20
"""Counting takes one part in so many of a connection's time, however much waits."""


class Quota:
    """Refuses who has too much waiting, without asking the database for each run.

    The database counts what waits every second or so, while somebody submits; between two counts this process adds what
    it accepts itself. Several processes may together let through what they accept within that second.

    Args:
        count: how many runs of each owner wait.
        limit: of one owner.
    """

    def __init__(
        self,
        count: Callable[[], Awaitable[Mapping[str, int]]],
        limit: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count = count
        self._limit = limit
        self._clock = clock
        self._waiting: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()
        self._look_at = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._has_looked = False

    async def admit(self, owner: str) -> None:
        """Count a run that is about to be stored.

        Raises:
            QuotaExceeded: the owner has as many waiting as one may.
            ConnectorException: nothing was ever counted, and the database does not answer.
        """
        if self._looking is None and self._clock() >= self._look_at:
            self._looking = asyncio.create_task(self._look())
        if not self._has_looked and self._looking is not None:
            await asyncio.shield(self._looking)
        if self._waiting[owner] >= self._limit:
            raise QuotaExceeded(
                detail=f"{self._limit} of your runs wait already.", quota="queued_runs", limit=self._limit
            )
        self._waiting[owner] += 1
        self._accepted[owner] += 1

    async def close(self) -> None:
        """Stop counting."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectorException):
                await self._looking

    async def _look(self) -> None:
        began = self._clock()
        # What is accepted during the count may not be part of it.
        self._accepted.clear()
        try:
            counted = await self._count()
            self._waiting = Counter(counted) + self._accepted
            self._has_looked = True
        except ConnectorException:
            # Whoever stores a run meanwhile is told by that. Only a first count is waited for.
            if not self._has_looked:
                raise
        finally:
            now = self._clock()
            self._look_at = now + max(LOOK_AGAIN_SECONDS, SHARE * (now - began))
            self._looking = None
