"""Where runs are accepted: what is submitted at the same moment is stored by one statement."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Sequence
from typing import Any

from procrastinate.exceptions import ConnectorException
from sqlalchemy.ext.asyncio import AsyncEngine

from app.engine.connector import SQLAlchemyAsyncConnector, is_refused_value
from app.engine.link import Link
from app.errors import QuotaExceeded, TooBusy
from app.runs import queries
from app.runs.quota import Quota

STATEMENTS_AT_ONCE = 2
BATCH = 200
ROOM = 5_000
"""So many runs may wait for a statement; who comes then is told to come again."""


class Intake:
    """Stores runs for all the requests of a process.

    A lone run is stored at once. While the database stores some, those that arrive gather, and are stored together:
    one statement, one transaction and one commit for all of them (group commit). Every caller waits for the commit
    of his own.

    Args:
        timeout: seconds after which a statement is given up.
        max_queued: how many runs of one owner may wait; not given: any number.
    """

    def __init__(self, engine: AsyncEngine, *, timeout: float, max_queued: int | None = None) -> None:
        self._connector = SQLAlchemyAsyncConnector(engine, timeout=timeout).with_own_pool()
        self._idle = [Link(self._connector.engine, timeout=timeout) for _ in range(STATEMENTS_AT_ONCE)]
        # No submission waits for a count.
        counting = Link(self._connector.engine, timeout=timeout)
        self._links = (*self._idle, counting)
        count = functools.partial(queries.count_waiting_runs, counting)
        self._quota = None if max_queued is None else Quota(count, max_queued)
        self._waiting: deque[tuple[queries.NewRun, asyncio.Future[queries.StoredRun]]] = deque()
        self._storing: set[asyncio.Task[None]] = set()

    async def store(self, run: queries.NewRun) -> queries.StoredRun:
        """Store a run and its job.

        Raises:
            UniqueViolation: a run with the same queueing lock is waiting.
            ConnectorException: the database did not answer; the run may or may not have been stored.
            TooBusy: too many wait for a statement already.
            QuotaExceeded: too many of this owner wait for a worker already.
        """
        return await (await self._admitted(run))

    async def store_all(self, runs: Sequence[queries.NewRun]) -> list[queries.StoredRun | BaseException]:
        """Store runs and their jobs, each or the error that kept it out, in the order given."""
        return await asyncio.gather(*[await self._admitted(run) for run in runs], return_exceptions=True)

    async def close(self) -> None:
        """Let the connections go."""
        if self._quota is not None:
            await self._quota.close()
        for link in self._links:
            link.close()
        await self._connector.close_async()

    async def _admitted(self, run: queries.NewRun) -> asyncio.Future[queries.StoredRun]:
        owner = run.get("owner")
        if self._quota is not None and owner is not None:
            try:
                await self._quota.admit(owner)
            except QuotaExceeded as problem:
                refused: asyncio.Future[queries.StoredRun] = asyncio.get_running_loop().create_future()
                refused.set_exception(problem)
                return refused
        return self._put(run)

    def _put(self, run: queries.NewRun) -> asyncio.Future[queries.StoredRun]:
        if len(self._waiting) >= ROOM:
            raise TooBusy(detail="Too many runs are being submitted at this moment.")
        stored: asyncio.Future[queries.StoredRun] = asyncio.get_running_loop().create_future()
        self._waiting.append((run, stored))
        # Not now: those that arrive in this turn of the loop go together.
        asyncio.get_running_loop().call_soon(self._go_on)
        return stored

    def _go_on(self) -> None:
        while self._idle and self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH))]
            storing = asyncio.create_task(self._store(self._idle.pop(), batch))
            self._storing.add(storing)
            storing.add_done_callback(self._storing.discard)

    async def _store(self, link: Link, batch: list[tuple[queries.NewRun, asyncio.Future[Any]]]) -> None:
        try:
            await self._store_or_split(link, batch)
        finally:
            self._idle.append(link)
            self._go_on()

    async def _store_or_split(self, link: Link, batch: list[tuple[queries.NewRun, asyncio.Future[Any]]]) -> None:
        try:
            rows = await queries.insert_runs(link, [run for run, _ in batch])
        except ConnectorException as error:
            if is_refused_value(error) and len(batch) > 1:
                # One of them is refused; the others have a right to be stored.
                half = len(batch) // 2
                await self._store_or_split(link, batch[:half])
                await self._store_or_split(link, batch[half:])
            else:
                for _, stored in batch:
                    if not stored.done():
                        stored.set_exception(error)
        else:
            for (_, stored), row in zip(batch, rows, strict=True):
                # Whoever has gone away meanwhile has his run all the same.
                if not stored.done():
                    stored.set_result(row)
