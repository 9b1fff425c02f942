"""Where runs are accepted: what is submitted at the same moment is stored by one statement."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Sequence

from fastapi_rfc9457 import Problem
from procrastinate.exceptions import ConnectorException
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.engine.connector import SQLAlchemyAsyncConnector, is_lock_timeout, is_refused_value, translated_errors
from app.engine.link import Link
from app.errors import IdempotencyInFlight, TooBusy
from app.outbound.postgres.database import autocommit
from app.runs import keys, queries
from app.runs.queries import NewRun
from app.runs.quota import Quota
from app.runs.schemas import Unique
from app.runs.stored import Stored, replayed
from app.runs.unique import store_unique
from app.runs.within import Within

STATEMENTS_AT_ONCE = 2
BATCH = 200
UNIQUE_AT_ONCE = 5
"""A unique run takes a transaction of its own, and a connection."""
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
        self._waiting: deque[tuple[NewRun, asyncio.Future[Stored]]] = deque()
        self._storing: set[asyncio.Task[None]] = set()
        self._alone = asyncio.Semaphore(UNIQUE_AT_ONCE)

    async def store(self, run: NewRun, unique: Unique | None = None) -> Stored:
        """Store a run and its job, unless its idempotency key, or a run of the unique key, is there.

        Raises:
            IdempotencyKeyReused: its idempotency key was sent with something else.
            IdempotencyInFlight: its idempotency key is being stored at this moment.
            NotUnique: a run of the unique key is in the way.
            UniqueViolation: a run with the same queueing lock is waiting.
            ConnectorException: the database did not answer; the run may or may not have been stored.
            TooBusy: too many wait for a statement already.
            QuotaExceeded: too many of this owner wait for a worker already.
        """
        await self._admit(run)
        if unique is None:
            return await self._put(run)
        async with self._alone:
            with translated_errors():
                return await store_unique(self._connector, run, unique)

    async def store_within(self, connection: AsyncConnection, run: NewRun) -> Stored:
        """Store a run and its job as part of the caller's transaction: they are there when that commits.

        Raises:
            UniqueViolation: a run with the same queueing lock is waiting.
            ConnectorException: the database did not answer.
            QuotaExceeded: too many of this owner wait for a worker already.
        """
        await self._admit(run)
        [stored] = await queries.insert_runs(Within(self._connector, connection), [run])
        assert stored is not None, "Only an idempotency key keeps a run out, and keys are of requests."
        return Stored(stored)

    async def store_all(self, runs: Sequence[tuple[NewRun, Unique | None]]) -> list[Stored | BaseException]:
        """Store runs and their jobs, each or the error that kept it out, in the order given."""
        return await asyncio.gather(*(self.store(run, unique) for run, unique in runs), return_exceptions=True)

    async def aclose(self) -> None:
        """Let the connections go."""
        if self._quota is not None:
            await self._quota.close()
        for link in self._links:
            link.close()
        await self._connector.close_async()

    async def _admit(self, run: NewRun) -> None:
        owner = run.get("owner")
        if self._quota is not None and owner is not None:
            await self._quota.admit(owner)

    def _put(self, run: NewRun) -> asyncio.Future[Stored]:
        if len(self._waiting) >= ROOM:
            raise TooBusy(detail="Too many runs are being submitted at this moment.")
        stored: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
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

    async def _store(self, link: Link, batch: list[tuple[NewRun, asyncio.Future[Stored]]]) -> None:
        try:
            await self._store_or_split(link, batch)
        finally:
            self._idle.append(link)
            self._go_on()

    async def _store_or_split(self, link: Link, batch: list[tuple[NewRun, asyncio.Future[Stored]]]) -> None:
        try:
            rows = await queries.insert_runs(link, [run for run, _ in batch])
            originals = await self._originals([run for (run, _), row in zip(batch, rows, strict=True) if row is None])
        except ConnectorException as error:
            if len(batch) > 1 and (is_refused_value(error) or is_lock_timeout(error)):
                # One of them is refused; the others have a right to be stored.
                half = len(batch) // 2
                await self._store_or_split(link, batch[:half])
                await self._store_or_split(link, batch[half:])
            else:
                told = _told(error)
                for _, stored in batch:
                    _settle(stored, told)
        else:
            for (run, stored), row in zip(batch, rows, strict=True):
                _settle(stored, Stored(row) if row is not None else _replayed(run, originals))

    async def _originals(self, runs: list[NewRun]) -> dict[keys.Key, queries.RunRow]:
        if not runs:
            return {}
        with translated_errors():
            async with autocommit(self._connector.engine).connect() as connection:
                return await keys.list_originals(connection, [_key(run) for run in runs])


def _settle(stored: asyncio.Future[Stored], outcome: Stored | BaseException) -> None:
    if stored.done():
        # Whoever has gone away meanwhile has his run all the same.
        return
    if isinstance(outcome, Stored):
        stored.set_result(outcome)
    else:
        stored.set_exception(outcome)


def _told(error: ConnectorException) -> BaseException:
    if is_lock_timeout(error):
        return IdempotencyInFlight(detail="The first request with this Idempotency-Key is being stored.")
    return error


def _replayed(run: NewRun, originals: dict[keys.Key, queries.RunRow]) -> Stored | BaseException:
    try:
        return replayed(run, originals.get(_key(run)))
    except Problem as problem:
        return problem


def _key(run: NewRun) -> keys.Key:
    return run["principal"], run["idempotency_key"]
