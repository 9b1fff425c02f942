"""An app like the real one over a test's database, whose actions a test defines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.eventually import eventually

from app.config import Settings
from app.engine.app import App
from app.engine.connector import SQLAlchemyAsyncConnector
from app.engine.worker import Worker
from app.outbound.clients import open_clients
from app.runs import service, submission
from app.runs.actions import Actions
from app.runs.intake import Intake
from app.runs.problems import describe
from app.runs.schemas import RunCreate, RunRead


@dataclass
class Workshop:
    """What a test needs to submit runs, perform them and look at them."""

    settings: Settings
    engine: AsyncEngine
    queue: App
    action: Actions
    intake: Intake

    async def submit(self, action: str, /, **params: Any) -> RunRead:
        """Submit with the action's own options."""
        return await self.request(RunCreate(action=action, params=params))

    async def request(self, request: RunCreate) -> RunRead:
        return await submission.submit(self.intake, self.action[request.action], request)

    async def get(self, run: RunRead | str) -> RunRead:
        return await service.get(self.engine, run if isinstance(run, str) else run.id)

    async def drain(self, **options: Any) -> None:
        """Perform what waits, then return. What is scheduled for later stays."""
        await self.queue.run_worker_async(wait=False, install_signal_handlers=False, listen_notify=False, **options)

    async def drain_all(self) -> None:
        """Perform what waits, and what is scheduled or to be retried, as if its time had come."""
        while True:
            await self.execute(
                "UPDATE procrastinate_jobs SET scheduled_at = now() WHERE status = 'todo' AND scheduled_at > now()"
            )
            if not await self.fetch("SELECT 1 FROM procrastinate_jobs WHERE status = 'todo'"):
                return
            await self.drain()

    @contextlib.asynccontextmanager
    async def working(self, **options: Any) -> AsyncIterator[Worker]:
        """A worker that goes on until the block ends."""
        async with self.queue._resources() as resources:
            options = {"install_signal_handlers": False, "additional_context": resources, **options}
            worker = self.queue._worker(**options)
            task = asyncio.create_task(worker.run())
            try:
                yield worker
            finally:
                worker.stop()
                await task

    async def reaches(self, run: RunRead, state: str) -> RunRead:
        """Wait until somebody has brought the run there."""

        async def there() -> RunRead | None:
            now = await self.get(run)
            return now if now.state == state else None

        found = await eventually(there)
        assert found is not None
        return found

    async def execute(self, sql: str, **arguments: Any) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text(sql), arguments)

    async def fetch(self, sql: str, **arguments: Any) -> list[dict[str, Any]]:
        async with self.engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(text(sql), arguments)).mappings()]

    async def value(self, sql: str, **arguments: Any) -> Any:
        rows = await self.fetch(sql, **arguments)
        return next(iter(rows[0].values())) if rows else None

    async def states(self, run: RunRead) -> list[str]:
        """The states that its events tell."""
        rows = await self.events(run, "state")
        return [row["data"]["state"] for row in rows]

    async def events(self, run: RunRead, type_: str | None = None) -> list[dict[str, Any]]:
        rows = await self.fetch("SELECT seq, type, data FROM run_events WHERE run_id = :id ORDER BY seq", id=run.id)
        return [row for row in rows if type_ in (None, row["type"])]


@contextlib.asynccontextmanager
async def open_workshop(engine: AsyncEngine, settings: Settings) -> AsyncIterator[Workshop]:
    @contextlib.asynccontextmanager
    async def resources() -> AsyncGenerator[dict[str, Any]]:
        async with open_clients(settings) as clients:
            yield {"clients": clients}

    queue = App(
        connector=SQLAlchemyAsyncConnector(engine, timeout=settings.db_timeout_seconds),
        describe=describe,
        resources=resources,
        worker_options={"sweep_interval": settings.sweep_seconds, "crash_cap": settings.crash_cap},
        worker_defaults={
            "concurrency": settings.worker_concurrency,
            "fetch_job_polling_interval": settings.poll_seconds,
            "abort_job_polling_interval": settings.poll_seconds,
            "update_heartbeat_interval": settings.heartbeat_seconds,
            "stalled_worker_timeout": settings.lease_seconds,
            "shutdown_graceful_timeout": settings.grace_seconds,
        },
    )
    async with queue.open_async():
        intake = Intake(engine, timeout=settings.db_timeout_seconds)
        yield Workshop(settings, engine, queue, Actions(queue), intake)
        await intake.aclose()
