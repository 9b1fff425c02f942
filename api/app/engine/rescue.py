"""Rescue: the jobs of workers that are no longer heard of go back to the queue. A loop in every worker."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from procrastinate import exceptions

from app.engine import queries
from app.engine.endings import TOO_LATE

logger = logging.getLogger(__name__)

BATCH = 100
NOTIFY_ALARM = 0.1
"""When the queue is full, no run can be submitted, claimed or ended."""

_WORKER_LOST = json.dumps(
    {
        "type": "/problems/worker-lost",
        "title": "The worker was lost",
        "detail": "The worker that performed this run stopped without a word: killed, crashed, or cut off.",
    }
)

_TOO_LATE = json.dumps(TOO_LATE.problem.document)


@dataclass(frozen=True)
class Rescue:
    """One sweep, as often as a worker asks for it.

    `lease` is in seconds. A job whose workers were lost `crash_cap` times has failed.
    """

    database: queries.Database
    lease: float
    crash_cap: int

    async def sweep(self) -> list[int]:
        """Put back every abandoned job, each in its own transaction so that one cannot hold up the others.

        Then runs that had to start by now fail, and workers that are lost are forgotten.

        Returns:
            The ids of the jobs that were abandoned and no longer are.
        """
        await self._move_notify_queue_on()
        rescued: list[int] = []
        refused: list[int] = []
        while abandoned := await queries.list_abandoned_jobs(self.database, lease=self.lease, limit=BATCH, but=refused):
            for job_id in abandoned:
                (rescued if await self._put_back(job_id) else refused).append(job_id)
        await queries.expire_jobs(self.database, error=_TOO_LATE, limit=BATCH)
        await queries.delete_lost_workers(self.database, lease=self.lease)
        await queries.delete_idle_limit_keys(self.database)
        return rescued

    async def _move_notify_queue_on(self) -> None:
        # First: while it is full, nothing of the rest can be committed.
        if (usage := await queries.notify_queue_usage(self.database)) > NOTIFY_ALARM:
            logger.warning(
                "%.0f %% of the NOTIFY queue is taken: a session listens and sits in a transaction", usage * 100
            )

    async def _put_back(self, job_id: int) -> bool:
        try:
            rescued = await self._rescue_or_unlock(job_id)
        except exceptions.ConnectorException as error:
            logger.warning("Job %s could not be rescued now: %r", job_id, error.__cause__)
            return False
        if rescued is not None:
            logger.warning("Job %s had lost its worker; it is now %s", job_id, rescued["status"])
        return rescued is not None

    async def _rescue_or_unlock(self, job_id: int) -> dict[str, object] | None:
        try:
            return await self._rescue(job_id, keeps_queueing_lock=True)
        except exceptions.UniqueViolation:
            # Another job waits under its queueing lock. Nothing is lost if this one waits without.
            return await self._rescue(job_id, keeps_queueing_lock=False)

    async def _rescue(self, job_id: int, *, keeps_queueing_lock: bool) -> dict[str, object] | None:
        return await queries.rescue_job(
            self.database,
            job_id=job_id,
            lease=self.lease,
            crash_cap=self.crash_cap,
            error=_WORKER_LOST,
            keeps_queueing_lock=keeps_queueing_lock,
        )
