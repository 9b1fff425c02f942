"""What waits, runs and has failed, as metrics: looked at when somebody collects them, and only then."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation
from sqlalchemy.ext.asyncio import AsyncEngine

from app.control import queries
from app.outbound.postgres.database import autocommit

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
SAME_SECONDS = 1.0
"""All gauges of one collection tell of one look."""
MOST_QUEUES = 100
"""Whoever submits may name a queue: only the fullest are told."""


@dataclass(frozen=True)
class Seen:
    """What one look has found, ready to be told."""

    depth: list[Observation] = field(default_factory=list[Observation])
    oldest: list[Observation] = field(default_factory=list[Observation])
    slots: list[Observation] = field(default_factory=list[Observation])
    dead_letters: list[Observation] = field(default_factory=list[Observation])


class Gauges:
    """Looks for the threads that collect metrics, over the connections of the event loop that it was made in."""

    def __init__(self, engine: AsyncEngine, *, lease: float) -> None:
        """`lease`: after so many seconds without a heartbeat a worker no longer lives."""
        self._engine = engine
        self._lease = lease
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._seen = Seen()
        self._until = 0.0

    def seen(self) -> Seen:
        """What there is. Blocks, up to `PATIENCE_SECONDS`: not for the event loop's thread.

        Where the database does not answer, nothing: a gauge that is not there is told apart from one that is 0.
        """
        with self._lock:
            if time.monotonic() >= self._until:
                looking = asyncio.run_coroutine_threadsafe(self._look(), self._loop)
                try:
                    self._seen = looking.result(PATIENCE_SECONDS)
                except Exception as error:  # noqa: BLE001 - who collects shall have the other metrics
                    looking.cancel()
                    logger.warning("Queues and workers are not among the metrics: %s", type(error).__name__)
                    self._seen = Seen()
                self._until = time.monotonic() + SAME_SECONDS
            return self._seen

    async def _look(self) -> Seen:
        async with autocommit(self._engine).connect() as connection:
            jobs = await queries.count_jobs(connection)
            totals = await queries.get_totals(connection, lease=self._lease)
        seen = Seen(
            slots=[
                Observation(totals.busy, {"state": "busy"}),
                Observation(max(totals.slots - totals.busy, 0), {"state": "free"}),
            ],
            dead_letters=[Observation(totals.dead_letters)],
        )
        by_queue = itertools.groupby(jobs, key=lambda row: row.queue)
        for queue, rows in itertools.islice(by_queue, MOST_QUEUES):
            waited = list[float]()
            for row in rows:
                seen.depth.append(Observation(row.jobs, {"queue": queue, "state": row.state}))
                waited += [row.waited_seconds] if row.waited_seconds is not None else []
            seen.oldest.append(Observation(max(waited, default=0.0), {"queue": queue}))
        return seen


_told: list[Gauges] = []


@contextlib.asynccontextmanager
async def gauges_told(engine: AsyncEngine, *, lease: float) -> AsyncGenerator[None]:
    """Within the block, they are among the metrics of this process."""
    gauges = Gauges(engine, lease=lease)
    _told.append(gauges)
    try:
        yield
    finally:
        _told.remove(gauges)


def _observe(name: Callable[[Seen], list[Observation]]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [observation for gauges in _told for observation in name(gauges.seen())]


_meter = metrics.get_meter("runledger.control")
_meter.create_observable_gauge(
    "runledger.queue.depth",
    [_observe(lambda seen: seen.depth)],
    unit="{run}",
    description="Runs that have not ended, by queue and state",
)
_meter.create_observable_gauge(
    "runledger.queue.oldest.age",
    [_observe(lambda seen: seen.oldest)],
    unit="s",
    description="For how long the first run of a queue has waited for a worker, since its time had come",
)
_meter.create_observable_gauge(
    "runledger.workers.slots",
    [_observe(lambda seen: seen.slots)],
    unit="{run}",
    description="How many runs the live workers can perform at once: those that they perform, and room for more",
)
_meter.create_observable_gauge(
    "runledger.dead_letters",
    [_observe(lambda seen: seen.dead_letters)],
    unit="{run}",
    description="Runs that have failed for good, and were neither retried nor discarded",
)
