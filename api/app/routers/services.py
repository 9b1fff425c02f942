"""The parts of one API process, which its routes share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from app.access.gate import Gate
from app.access.streams import Streams
from app.config import Settings
from app.control.gauges import gauges_told
from app.control.pulse import Pulse
from app.engine.app import App
from app.engine.manager import JobManager
from app.engine.schedule import Schedule
from app.outbound.postgres.database import make_engine
from app.outbound.storage.client import open_storage
from app.outbound.storage.interface import Storage
from app.runs.actions import Actions
from app.runs.intake import Intake
from app.runs.lookout import Lookout

MOST_UPLOADS = 8


@dataclass(frozen=True)
class Services:
    """The parts of one API process."""

    settings: Settings
    engine: AsyncEngine
    manager: JobManager
    actions: Actions
    intake: Intake
    lookout: Lookout
    pulse: Pulse
    gate: Gate
    streams: Streams
    stopping: asyncio.Event
    """Set when the process is told to stop: open streams end."""
    schedules: Sequence[Schedule]
    """Those that the code declares."""
    storage: Storage
    uploads: asyncio.Semaphore
    """Files that may be read at once: each is in memory."""


@contextlib.asynccontextmanager
async def open_services(settings: Settings, queue: App, catalogue: Actions) -> AsyncGenerator[Services]:
    """Open the parts, over a queue that is open; streams have ended when the block has."""
    # Its own: who asks does not wait for a connection for as long as a worker would.
    engine = make_engine(settings, pool_timeout=settings.pool_timeout_seconds)
    intake = Intake(engine, timeout=settings.db_timeout_seconds, max_queued=settings.max_queued_runs)
    stopping = asyncio.Event()
    lookout = Lookout(engine, timeout=settings.db_timeout_seconds, stopping=stopping)
    async with open_storage(settings) as storage, gauges_told(engine, lease=settings.lease_seconds):
        watching = asyncio.create_task(lookout.run())
        try:
            yield Services(
                settings=settings,
                engine=engine,
                manager=queue.job_manager,
                actions=catalogue,
                intake=intake,
                lookout=lookout,
                pulse=Pulse(engine, lease=settings.lease_seconds),
                gate=Gate(settings, engine),
                streams=Streams(settings.max_streams),
                stopping=stopping,
                schedules=queue.schedules,
                storage=storage,
                uploads=asyncio.Semaphore(MOST_UPLOADS),
            )
        finally:
            stopping.set()
            await watching
            await intake.aclose()
            await engine.dispose()
