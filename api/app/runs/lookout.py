"""One LISTEN, and one look at a time, for all the watchers of a process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from app.engine.link import Link
from app.engine.listener import Listener
from app.runs import queries
from app.runs.schemas import EventRead, read_event, read_run
from app.runs.state import RunState
from app.runs.watch import Changes, Told, Watch

logger = logging.getLogger(__name__)

CHANNEL = "runledger_events"
EVERYBODY = "*"
LOOK_AGAIN_SECONDS = 15.0
"""It looks this often even if the bell does not ring."""
PAUSE_SECONDS = 0.02
"""Between two looks: what happens meanwhile is seen by one."""
AFTER_FAILURE_SECONDS = 1.0
BATCH = 500


@dataclass(slots=True)
class _Watched:
    """A run that somebody watches, and how far its watchers have been told."""

    seen: int
    watches: set[Watch] = field(default_factory=set)


class Lookout:
    """Tells watchers what happens to runs. The bell says "look again"; the rows are the truth.

    Watchers of one run share each look at it, and looks that are due at the same moment are one statement.

    Args:
        timeout: seconds after which a statement is given up.
        stopping: set when the process is told to stop; all watches then end.
    """

    def __init__(self, engine: AsyncEngine, *, timeout: float, stopping: asyncio.Event) -> None:
        self._listener = Listener(engine, [CHANNEL], timeout=timeout)
        self._link = Link(engine, timeout=timeout)
        self._stopping = stopping
        self._watched: dict[str, _Watched] = {}
        self._changes: set[Changes] = set()
        self._rung: set[str] = set()
        self._bell = asyncio.Event()
        self.is_listening = asyncio.Event()

    @property
    def is_deaf(self) -> bool:
        """Whether it hears no bell at this moment, and only looks every `LOOK_AGAIN_SECONDS`."""
        return self._listener.is_deaf

    async def run(self) -> None:
        """Listen and look until the process is told to stop, or this is cancelled."""
        tasks = [
            asyncio.create_task(self._listener.run(self._on_notification, self._on_listening)),
            asyncio.create_task(self._look_for_ever()),
        ]
        try:
            await self._stopping.wait()
        finally:
            for task in tasks:
                task.cancel()
            for watch in [*self._changes, *(watch for run in self._watched.values() for watch in run.watches)]:
                watch.end()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._link.close()

    @contextlib.contextmanager
    def watch(self, run_id: str, seq: int) -> Generator[Watch]:
        """What happens to a run after its event `Watch.start`, which is `seq` or later, each event once, in order."""
        watched = self._watched.setdefault(run_id, _Watched(seq))
        watch = Watch(start=max(seq, watched.seen), is_over=self._stopping.is_set())
        watched.watches.add(watch)
        # Between reading `seq` and now the bell may have rung for nobody.
        self._ring(run_id)
        try:
            yield watch
        finally:
            watched.watches.discard(watch)
            if not watched.watches and self._watched.get(run_id) is watched:
                del self._watched[run_id]

    @contextlib.contextmanager
    def changes(self, owner: str | None) -> Generator[Changes]:
        """All runs of an owner that change, as they are then; `None`: everybody's."""
        changes = Changes(owner, is_over=self._stopping.is_set())
        self._changes.add(changes)
        try:
            yield changes
        finally:
            self._changes.discard(changes)

    def _ring(self, *run_ids: str) -> None:
        self._rung.update(run_ids)
        self._bell.set()

    async def _on_notification(self, *, channel: str, payload: str) -> None:  # noqa: ARG002 - Notify's signature
        names = payload.split()
        if names == [EVERYBODY]:
            self._ring_for_all()
        elif names := [name for name in names if self._changes or name in self._watched]:
            self._ring(*names)

    async def _on_listening(self) -> None:
        self.is_listening.set()
        # What was said during a gap was not heard.
        self._ring_for_all()

    def _ring_for_all(self) -> None:
        for changes in self._changes:
            changes.lose_track()
        self._ring(*self._watched)

    async def _look_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                    await self._bell.wait()
            except TimeoutError:
                self._ring_for_all()
            self._bell.clear()
            rung, self._rung = self._rung, set()
            try:
                await self._look(rung)
                await asyncio.sleep(PAUSE_SECONDS)
            except Exception:
                logger.warning("Could not look for watchers, trying again", exc_info=True)
                await asyncio.sleep(AFTER_FAILURE_SECONDS)
                self._ring(*rung)

    async def _look(self, rung: set[str]) -> None:
        watched = {run_id: self._watched[run_id].seen for run_id in rung if run_id in self._watched}
        events = await queries.list_new_events(self._link, watched, limit=BATCH) if watched else []
        by_run: defaultdict[str, list[EventRead]] = defaultdict(list)
        for row in events:
            by_run[row["run_id"]].append(read_event(row))
        for run_id, told in by_run.items():
            self._tell(run_id, told)
        ended = {run_id for run_id, told in by_run.items() if any(_ends(event) for event in told)}
        if changed := (rung if self._changes else ended):
            rows = await queries.list_runs_by_id(self._link, changed)
            self._tell_ends([row for row in rows if row["id"] in ended])
            for changes in self._changes:
                changes.put(rows)

    def _tell(self, run_id: str, events: list[EventRead]) -> None:
        watched = self._watched.get(run_id)
        if watched is None:
            return
        watched.seen = events[-1].seq
        if len(events) == BATCH:
            self._ring(run_id)
        told = [Told(event.seq, event) for event in events]
        for watch in watched.watches:
            watch.put(told)

    def _tell_ends(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            watched = self._watched.get(row["id"])
            # Who retries a run at once takes its end back: it goes on.
            if watched is None or row["last_seq"] > watched.seen or not RunState(row["state"]).is_final:
                continue
            # Who begins to watch it from now on reads the end from its row.
            del self._watched[row["id"]]
            end = [Told(row["last_seq"], read_run(row))]
            for watch in watched.watches:
                watch.put(end)


def _ends(event: EventRead) -> bool:
    return event.type == "state" and RunState(event.data["state"]).is_final
