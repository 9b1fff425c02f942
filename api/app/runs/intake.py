"""Where runs are accepted: what is submitted at the same moment is stored by one statement."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi_rfc9457 import Problem
from procrastinate.exceptions import ConnectorException
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.engine.connector import SQLAlchemyAsyncConnector, is_lock_timeout, is_refused_value, translated_errors
from app.engine.link import Link
from app.errors import IdempotencyInFlight, QuotaExceeded, TooBusy
from app.outbound.postgres.database import autocommit
from app.runs import keys, queries
from app.runs.queries import NewRun
from app.runs.quota import Quota
from app.runs.schemas import Unique
from app.runs.stored import IN_FLIGHT, Stored, replayed
from app.runs.unique import store_unique
from app.runs.within import Within

STATEMENTS_AT_ONCE = 2
BATCH = 200
UNIQUE_AT_ONCE = 5
"""A unique run takes a transaction of its own, and a connection."""
ROOM = 5_000
"""So many runs may wait for a statement; who comes then is told to come again."""


Outcome = Stored | BaseException


@dataclass(frozen=True, eq=False, slots=True)
class _Bundle:
    """Runs that were sent together, and somebody who waits for all of them."""

    runs: list[NewRun]
    outcomes: asyncio.Future[list[Outcome]]


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
        self._waiting: deque[_Bundle] = deque()
        self._gathered = 0
        """How many runs wait for a statement."""
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
        if refused := await self._refusal(run):
            raise refused
        if unique is not None:
            return await self._store_unique(run, unique)
        [outcome] = await self._put([run])
        if isinstance(outcome, Stored):
            return outcome
        raise outcome

    async def queued_run(self, run: NewRun) -> str | None:
        """The run that waits under this one's queueing lock, if it is of the same owner."""
        if run["queueing_lock"] is None:
            return None
        with translated_errors():
            async with autocommit(self._connector.engine).connect() as connection:
                return await keys.get_queued_run(connection, queueing_lock=run["queueing_lock"], owner=run["owner"])

    async def store_within(self, connection: AsyncConnection, run: NewRun) -> Stored:
        """Store a run and its job as part of the caller's transaction: they are there when that commits.

        Raises:
            IdempotencyInFlight: another request with its idempotency key is being stored, or was.
            UniqueViolation: a run with the same queueing lock is waiting.
            ConnectorException: the database did not answer.
            QuotaExceeded: too many of this owner wait for a worker already.
        """
        if refused := await self._refusal(run):
            raise refused
        within = Within(self._connector, connection)
        try:
            [stored] = await queries.insert_runs(within, [run])
            await queries.stop_keeping(within)
        except ConnectorException as error:
            if is_lock_timeout(error):
                raise IdempotencyInFlight(detail=IN_FLIGHT) from error
            raise
        if stored is None:
            raise IdempotencyInFlight(detail=IN_FLIGHT)
        return Stored(stored)

    async def store_all(self, runs: Sequence[tuple[NewRun, Unique | None]]) -> list[Outcome]:
        """Store runs and their jobs, each or the error that kept it out, in the order given."""
        outcomes: list[Outcome | None] = [await self._refusal(run) for run, _ in runs]
        admitted = [n for n, outcome in enumerate(outcomes) if outcome is None]
        plain = [n for n in admitted if runs[n][1] is None]
        bundles = [plain[begin : begin + BATCH] for begin in range(0, len(plain), BATCH)]
        stored = await asyncio.gather(*(self._put([runs[n][0] for n in bundle]) for bundle in bundles))
        for n, outcome in zip(plain, itertools.chain(*stored), strict=True):
            outcomes[n] = outcome
        alone = [(n, run, unique) for n in admitted for run, unique in [runs[n]] if unique is not None]
        unique = await asyncio.gather(*(self._store_unique(run, key) for _, run, key in alone), return_exceptions=True)
        for (n, _, _), outcome in zip(alone, unique, strict=True):
            outcomes[n] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    async def aclose(self) -> None:
        """Let the connections go."""
        if self._quota is not None:
            await self._quota.close()
        for link in self._links:
            link.close()
        await self._connector.close_async()

    async def _refusal(self, run: NewRun) -> BaseException | None:
        owner = run.get("owner")
        if self._quota is not None and owner is not None:
            try:
                await self._quota.admit(owner)
            except (QuotaExceeded, ConnectorException) as error:
                return error
        return None

    async def _store_unique(self, run: NewRun, unique: Unique) -> Stored:
        async with self._alone:
            with translated_errors():
                return await store_unique(self._connector, run, unique)

    def _put(self, runs: list[NewRun]) -> asyncio.Future[list[Outcome]]:
        outcomes: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        if self._gathered >= ROOM:
            outcomes.set_result([TooBusy(detail="Too many runs are being submitted at this moment.")] * len(runs))
            return outcomes
        self._gathered += len(runs)
        self._waiting.append(_Bundle(runs, outcomes))
        # Not now: those that arrive in this turn of the loop go together.
        asyncio.get_running_loop().call_soon(self._go_on)
        return outcomes

    def _go_on(self) -> None:
        while self._idle and self._waiting:
            storing = asyncio.create_task(self._store(self._idle.pop(), self._next()))
            self._storing.add(storing)
            storing.add_done_callback(self._storing.discard)

    def _next(self) -> list[_Bundle]:
        """What goes together: up to `BATCH` runs, which is what the largest bundle has."""
        bundles, room = list[_Bundle](), BATCH
        while self._waiting and len(self._waiting[0].runs) <= room:
            bundles.append(self._waiting.popleft())
            room -= len(bundles[-1].runs)
        return bundles

    async def _store(self, link: Link, bundles: list[_Bundle]) -> None:
        runs = [run for bundle in bundles for run in bundle.runs]
        self._gathered -= len(runs)
        try:
            outcomes = iter(await self._outcomes(link, runs))
            for bundle in bundles:
                mine = list(itertools.islice(outcomes, len(bundle.runs)))
                # Whoever has gone away meanwhile has his runs all the same.
                if not bundle.outcomes.done():
                    bundle.outcomes.set_result(mine)
        finally:
            self._idle.append(link)
            self._go_on()

    async def _outcomes(self, link: Link, runs: list[NewRun]) -> list[Outcome]:
        try:
            rows = await queries.insert_runs(link, runs)
            originals = await self._originals([run for run, row in zip(runs, rows, strict=True) if row is None])
        except ConnectorException as error:
            if len(runs) > 1 and (is_refused_value(error) or is_lock_timeout(error)):
                # One of them is refused; the others have a right to be stored.
                half = len(runs) // 2
                return [
                    *await self._outcomes(link, runs[:half]),
                    *await self._outcomes(link, runs[half:]),
                ]
            return [_told(error)] * len(runs)
        except Exception as error:  # noqa: BLE001 - our mistake: somebody waits all the same, and has to be told
            return [error] * len(runs)
        return [
            Stored(row) if row is not None else _replayed(run, originals) for run, row in zip(runs, rows, strict=True)
        ]

    async def _originals(self, runs: list[NewRun]) -> dict[keys.Key, queries.RunRow]:
        if not runs:
            return {}
        with translated_errors():
            async with autocommit(self._connector.engine).connect() as connection:
                return await keys.list_originals(connection, [_key(run) for run in runs])


def _told(error: ConnectorException) -> BaseException:
    if is_lock_timeout(error):
        return IdempotencyInFlight(detail=IN_FLIGHT)
    return error


def _replayed(run: NewRun, originals: dict[keys.Key, queries.RunRow]) -> Stored | BaseException:
    try:
        return replayed(run, originals.get(_key(run)))
    except Problem as problem:
        return problem


def _key(run: NewRun) -> keys.Key:
    return run["principal"], run["idempotency_key"]
