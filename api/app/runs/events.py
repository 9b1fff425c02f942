"""Watching a run: its history after a point, then what happens next, until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.ext.asyncio import AsyncEngine

from app.outbound.postgres.database import autocommit
from app.runs import queries
from app.runs.lookout import Lookout
from app.runs.schemas import EventRead, RunRead, read_event
from app.runs.watch import Told

BATCH = 500

T = TypeVar("T")


async def follow(
    engine: AsyncEngine, lookout: Lookout, run: RunRead, *, after: int, stopping: asyncio.Event
) -> AsyncGenerator[list[Told]]:
    """The events of a run whose `seq` is greater than `after`, each once and in order, and at its end the run itself.

    They come in lists; an empty one says that nothing has happened for a while.

    Args:
        run: as it was read a moment ago.
        stopping: set when the process is told to stop; the stream then ends early, and can be resumed elsewhere.
    """
    if run.state.is_final:
        async for told in _history(engine, run.id, after, run.last_seq, stopping):
            yield told
        yield [Told(run.last_seq, run)]
        return
    with lookout.watch(run.id, run.last_seq) as watch:
        async for told in _history(engine, run.id, after, watch.start, stopping):
            yield told
        last = max(after, watch.start)
        async for told in watch:
            yield [one for one in told if one.seq > last or isinstance(one.what, RunRead)]
            if told and isinstance(told[-1].what, RunRead):
                return


async def wait_for(lookout: Lookout, run: RunRead, *, seconds: float, end: bool) -> None:
    """Wait until something happens to a run, or until it ends, for so many seconds at most."""
    if run.state.is_final:
        return
    with lookout.watch(run.id, run.last_seq) as watch:
        try:
            async with asyncio.timeout(seconds):
                async for told in watch:
                    if told and (not end or isinstance(told[-1].what, RunRead)):
                        return
        except TimeoutError:
            return


async def patiently(look: Callable[[], Awaitable[T]], stopping: asyncio.Event) -> T:
    """What `look` finds, as soon as there is a connection: a crowd of watchers waits longer than who asks once.

    Raises:
        sqlalchemy.exc.TimeoutError: all connections are in use, and the process is told to stop.
    """
    while True:
        try:
            return await look()
        except NoFreeConnection:
            if stopping.is_set():
                raise


async def _history(
    engine: AsyncEngine, run_id: str, after: int, until: int, stopping: asyncio.Event
) -> AsyncGenerator[list[Told]]:
    """The events that are there: after one, until another."""

    async def look() -> list[EventRead]:
        async with autocommit(engine).connect() as connection:
            return [read_event(row) for row in await queries.list_events(connection, run_id, after=after, limit=BATCH)]

    while after < until and (events := await patiently(look, stopping)):
        yield [Told(event.seq, event) for event in events if event.seq <= until]
        after = events[-1].seq
