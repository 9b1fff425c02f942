"""Watching a run: its history after a point, then what happens next, until it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import TypeVar

from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.ext.asyncio import AsyncEngine

from app.engine.listener import Listener
from app.outbound.postgres.database import autocommit
from app.runs import queries
from app.runs.schemas import EventRead, RunRead, read_event, read_run

CHANNEL = "runledger_events"
EVERYBODY = "*"
LOOK_AGAIN_SECONDS = 15.0
"""A watcher looks this often even if the bell does not ring."""
BATCH = 500

T = TypeVar("T")


class Bell:
    """One LISTEN for all the watchers of a process. It says "look again"; the rows are the truth."""

    def __init__(self, engine: AsyncEngine, *, timeout: float) -> None:
        self._listener = Listener(engine, [CHANNEL], timeout=timeout)
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.is_listening = asyncio.Event()

    async def run(self) -> None:
        """Listen until cancelled."""
        await self._listener.run(self._on_notification, self._on_listening)

    @contextlib.contextmanager
    def watch(self, run_id: str) -> Generator[asyncio.Event]:
        """An event that is set whenever the run may have changed."""
        rung = asyncio.Event()
        self._watchers[run_id].add(rung)
        try:
            yield rung
        finally:
            self._watchers[run_id].discard(rung)
            if not self._watchers[run_id]:
                del self._watchers[run_id]

    def ring(self, run_ids: list[str]) -> None:
        """Wake the watchers of some runs; `[EVERYBODY]` wakes all."""
        names = list(self._watchers) if run_ids == [EVERYBODY] else run_ids
        for run_id in names:
            for rung in self._watchers.get(run_id, ()):
                rung.set()

    async def _on_notification(self, *, channel: str, payload: str) -> None:  # noqa: ARG002 - Notify's signature
        self.ring(payload.split())

    async def _on_listening(self) -> None:
        self.is_listening.set()
        # What was said during a gap was not heard.
        self.ring([EVERYBODY])


async def follow(
    engine: AsyncEngine, bell: Bell, run_id: str, *, after: int, stopping: asyncio.Event
) -> AsyncGenerator[EventRead | RunRead]:
    """The events of a run whose `seq` is greater than `after`, each once and in order, and at its end the run itself.

    Args:
        stopping: set when the process is told to stop; the stream then ends early, and can be resumed elsewhere.
    """
    with bell.watch(run_id) as rung:
        while True:
            rung.clear()
            run, events = await patiently(lambda after=after: _look(engine, run_id, after), stopping)
            for event in events:
                yield event
                after = event.seq
            if len(events) == BATCH:
                continue
            if run is None or run.state.is_final:
                if run is not None:
                    yield run
                return
            await _first_of(rung, stopping)
            if stopping.is_set():
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


async def _look(engine: AsyncEngine, run_id: str, after: int) -> tuple[RunRead | None, list[EventRead]]:
    async with autocommit(engine).connect() as connection:
        # The run first: if it has ended, its last event is among those read next.
        run = await queries.get_run(connection, run_id)
        events = await queries.list_events(connection, run_id, after=after, limit=BATCH)
    return (read_run(run) if run else None), [read_event(event) for event in events]


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=LOOK_AGAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
