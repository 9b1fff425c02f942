"""What a worker asks of the database. No answer of the database ends a worker."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any, cast

from procrastinate import exceptions, jobs
from procrastinate import manager as upstream
from typing_extensions import override

from app.engine import queries
from app.engine.connector import SQLAlchemyAsyncConnector
from app.engine.endings import Cancelled, Ending, Failed, Lost, Released, Retried, Succeeded

logger = logging.getLogger(__name__)


class JobManager(upstream.JobManager):
    """Procrastinate's `JobManager`, fenced and hard to kill."""

    connector: SQLAlchemyAsyncConnector

    async def end_job(self, job: jobs.Job, worker_id: int, ending: Ending, *, keeps_queueing_lock: bool) -> bool:
        """Write down how an attempt ended, if this worker still holds it.

        Returns:
            Whether it was written.

        Raises:
            UniqueViolation: it was to be put back, and another job waits under its queueing lock.
            ConnectorException: the database did not answer; the ending may or may not have been written, and writing
                it again does no harm.
            TypeError, ValueError: the result is not JSON.
        """
        assert job.id is not None
        return await queries.end_job(
            self.connector,
            job_id=job.id,
            worker_id=worker_id,
            attempts=job.attempts,
            keeps_queueing_lock=keeps_queueing_lock,
            **_columns(ending),
        )

    async def put_back_unperformed(self, worker_id: int, performing: set[int]) -> None:
        """Put back what the database holds for a worker that does not perform it: claims whose answer was lost."""
        for job_id, attempts in await queries.list_held_jobs(self.connector, worker_id=worker_id):
            if job_id not in performing:
                logger.warning("Job %s was claimed and never began; it goes back", job_id)
                await self._put_back(job_id, worker_id, attempts)

    async def _put_back(self, job_id: int, worker_id: int, attempts: int) -> None:
        holder = {"job_id": job_id, "worker_id": worker_id, "attempts": attempts}
        try:
            await queries.end_job(self.connector, **holder, keeps_queueing_lock=True, **_columns(Released()))
        except exceptions.UniqueViolation:
            # Another job waits under its queueing lock. Nothing is lost if this one waits without.
            await queries.end_job(self.connector, **holder, keeps_queueing_lock=False, **_columns(Released()))

    async def delete_ended_job(self, job: jobs.Job) -> None:
        assert job.id is not None
        await queries.delete_ended_job(self.connector, job_id=job.id)

    @override
    async def update_heartbeat(self, worker_id: int) -> None:
        await queries.beat(self.connector, worker_id=worker_id)

    @override
    async def listen_for_jobs(
        self, *, on_notification: upstream.NotificationCallback, queues: Iterable[str] | None = None
    ) -> None:
        async def understand(*, channel: str, payload: str) -> None:
            await on_notification(channel=channel, notification=cast(jobs.Notification, json.loads(payload)))

        async def look_once() -> None:
            # What was announced while nobody listened: a worker that hears "inserted" looks at the queue.
            await on_notification(channel="", notification={"type": "job_inserted", "job_id": 0})

        channels = upstream.get_channel_for_queues(queues=queues)
        await self.connector.listen(understand, channels, on_listening=look_once)


def _columns(ending: Ending) -> dict[str, Any]:
    """An ending, as the arguments of `queries.end_job`."""
    match ending:
        case Succeeded(result=result):
            return {"status": "succeeded", "result": json.dumps(result, allow_nan=False)}
        case Failed(problem=problem):
            return {"status": "failed", "error": json.dumps(problem.document), "traceback": problem.traceback}
        case Retried(problem=problem):
            return {
                "status": "todo",
                "error": json.dumps(problem.document),
                "traceback": problem.traceback,
                "delay": ending.delay,
                "priority": ending.priority,
                "queue": ending.queue,
                "lock": ending.lock,
            }
        case Cancelled():
            return {"status": "aborted"}
        case Released(delay=delay):
            return {"status": "todo", "attempts_made": 0, "delay": delay}
        case Lost():
            # Whoever holds the job is not touched; if nobody does, because the run was deleted, it must not stay.
            return {
                "status": "failed",
                "error": json.dumps({"type": "/problems/run-lost", "title": "Run lost"}),
            }
