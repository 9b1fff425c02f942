"""The claim: jobs go from the queue to one worker, as many as it can start at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attr
from procrastinate import exceptions, jobs

from app.engine import queries
from app.engine.link import Link

LOCKS_A_LOOK = 100
"""How many of the locks that jobs wait for are looked at by one claim; the next claim goes on behind them."""
_FIRST = ("", "")


@attr.dataclass(frozen=True, kw_only=True)
class ClaimedJob(jobs.Job):
    """A job, and what the ledger knows of its run."""

    # Nobody claims a job without an id, nor without being somebody.
    id: int  # pyright: ignore[reportGeneralTypeIssues]
    worker_id: int  # pyright: ignore[reportGeneralTypeIssues]
    #: `None`: a task of a namespace, which has no run.
    run_id: str | None
    #: How many steps earlier attempts have finished.
    steps: int
    #: How often a worker was lost in the middle of it.
    crashes: int
    #: Whether it had to start earlier than now.
    is_late: bool


class Claims:
    """Takes jobs for one worker, over a link of its own."""

    def __init__(self, link: Link, queues: Sequence[str] | None) -> None:
        self._link = link
        self._queues = None if queues is None else list(queues)
        self._after = _FIRST

    async def claim(self, worker_id: int, limit: int) -> list[ClaimedJob]:
        """Up to `limit` jobs, which are this worker's from now on.

        Raises:
            ConnectorException: the database did not answer. Jobs may have been claimed all the same.
        """
        try:
            return await self._look_round(worker_id, limit)
        except exceptions.UniqueViolation:
            # Another worker took one of the locks at the same moment. Take what needs none.
            return await self._look(worker_id, limit, locks=0)

    async def _look_round(self, worker_id: int, limit: int) -> list[ClaimedJob]:
        began_in_the_middle = self._after != _FIRST
        while not (found := await self._look(worker_id, limit, locks=LOCKS_A_LOOK)):
            # Nothing is claimed only after all the locks were looked at.
            if self._after == _FIRST and not began_in_the_middle:
                break
            began_in_the_middle = began_in_the_middle and self._after != _FIRST
        return found

    async def _look(self, worker_id: int, limit: int, *, locks: int) -> list[ClaimedJob]:
        rows, last_lock = await queries.claim_jobs(
            self._link, worker_id=worker_id, limit=limit, queues=self._queues, locks=locks, after=self._after
        )
        self._after = last_lock or _FIRST
        return [_claimed(row) for row in rows]


def _claimed(row: dict[str, Any]) -> ClaimedJob:
    return ClaimedJob(
        id=row["id"],
        status=row["status"],
        queue=row["queue_name"],
        priority=row["priority"],
        lock=row["lock"],
        queueing_lock=row["queueing_lock"],
        task_name=row["task_name"],
        task_kwargs=row["args"],
        scheduled_at=row["scheduled_at"],
        attempts=row["attempts"],
        abort_requested=row["abort_requested"],
        worker_id=row["worker_id"],
        run_id=row["run_id"],
        steps=row["steps"] or 0,
        crashes=row["crashes"] or 0,
        is_late=bool(row["is_late"]),
    )
