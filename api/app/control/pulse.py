"""What an administrator watches of queues and workers: looked at once a second for all who do, and only then."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Generator, Iterable
from enum import StrEnum

from sqlalchemy.ext.asyncio import AsyncEngine

from app.control.queues import list_queues
from app.control.schemas import QueueList, WorkerList
from app.control.workers import list_workers
from app.runs.watch import Changes

logger = logging.getLogger(__name__)

EVERY_SECONDS = 1.0

Seen = QueueList | WorkerList


class Topic(StrEnum):
    """What can be watched here; the names of its events."""

    QUEUES = "queues"
    WORKERS = "workers"


class Pulse:
    """Tells what has changed since it told the same watcher last, at first how it is."""

    def __init__(self, engine: AsyncEngine, *, lease: float) -> None:
        """`lease`: after so many seconds without a heartbeat a worker no longer lives."""
        self._looks: dict[Topic, Callable[[], Awaitable[Seen]]] = {
            Topic.QUEUES: lambda: list_queues(engine, lease=lease),
            Topic.WORKERS: lambda: list_workers(engine, lease=lease),
        }
        self._told: dict[Changes, dict[Topic, Seen | None]] = {}
        self._beating: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def tells(self, watcher: Changes, topics: Iterable[Topic]) -> Generator[None]:
        """Within the block the watcher is told of these topics."""
        told: dict[Topic, Seen | None] = dict.fromkeys(topics)
        if not told:
            yield
            return
        self._told[watcher] = told
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat_for_ever())
        try:
            yield
        finally:
            del self._told[watcher]
            if not self._told:
                self._beating.cancel()
                self._beating = None

    async def _beat_for_ever(self) -> None:
        while True:
            for topic, look in self._looks.items():
                try:
                    if any(topic in told for told in self._told.values()):
                        self._tell(topic, await look())
                except Exception:
                    logger.warning("Could not look at the %s for those who watch, trying again", topic, exc_info=True)
            await asyncio.sleep(EVERY_SECONDS)

    def _tell(self, topic: Topic, seen: Seen) -> None:
        for watcher, told in self._told.items():
            if topic in told and told[topic] != seen:
                told[topic] = seen
                watcher.tell(topic, seen)
