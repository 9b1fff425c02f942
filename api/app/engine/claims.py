"""The claim: jobs go from the queue to one worker, as many as it can start at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attr
from procrastinate import exceptions, jobs

from app.engine import queries
from app.engine.link import Link

LINES_A_LOOK = 100
"""How many of the locks that jobs wait for, and of the keys of limits, one claim looks at; the next goes on behind."""
SOONEST_SECONDS = 0.01
"""Before that, nobody looks again for the room that another worker had in hand: it takes a moment to use it."""
_FIRST = ("", "")


@attr.dataclass(frozen=True, kw_only=True)
class ClaimedJob(jobs.Job):
    """A job, and what the ledger knows of its run."""

    # Nobody claims a job without an id, nor without being somebody.
    id: int  # pyright: ignore[reportGeneralTypeIssues]
    worker_id: int  # pyright: ignore[reportGeneralTypeIssues]
    #: `None`: a task of a namespace, which has no run.
    run_id: str | None
    #: When, by the database's clock, it was claimed; `None` without a run.
    claimed_at: datetime | None
    #: Whose run it is; `None`: nobody's.
    owner: str | None
    #: How many steps earlier attempts have finished.
    steps: int
    #: How often a worker was lost in the middle of it.
    crashes: int
    #: How often it was asked to wait, without using an attempt.
    snoozes: int
    #: How often it is tried in all; `None`: its task decides.
    max_attempts: int | None
    #: Whether it had to start earlier than now.
    is_late: bool
    #: Whether others may wait for its end: for its lock, or for its place under a limit.
    is_waited_for: bool


class Claims:
    """Takes jobs for one worker, over a link of its own."""

    def __init__(self, link: Link, queues: Sequence[str] | None) -> None:
        self._link = link
        self._queues = None if queues is None else list(queues)
        self._after_lock = self._after_key = _FIRST
        self._others_wait = False
        """Whether, at the last look, any job waited for a lock or under a limit."""
        self.seconds: float | None = None
        """When the last claim would have found more, if no job ends before."""

    @property
    def is_contended(self) -> bool:
        """Whether the last claim has left jobs only because another worker had them in hand."""
        return self.seconds is not None and self.seconds <= SOONEST_SECONDS

    async def claim(self, worker_id: int, limit: int) -> list[ClaimedJob]:
        """Up to `limit` jobs, which are this worker's from now on.

        Raises:
            ConnectorException: the database did not answer. Jobs may have been claimed all the same.
        """
        self.seconds = None
        if not self._others_wait:
            claim = await queries.claim_ready_jobs(self._link, worker_id=worker_id, limit=limit, queues=self._queues)
            self._others_wait = claim.others_wait
            if not self._others_wait:
                return [_claimed(row) for row in claim.jobs]
        try:
            return await self._look_round(worker_id, limit)
        except exceptions.UniqueViolation:
            # Another worker took one of the locks at the same moment. Take what needs none.
            return await self._look(worker_id, limit, lines=0)

    async def _look_round(self, worker_id: int, limit: int) -> list[ClaimedJob]:
        # Nothing is claimed only after all the locks and all the keys were looked at: who begins in the middle of them
        # has to come by their end twice.
        locks, keys = (1 if after == _FIRST else 2 for after in (self._after_lock, self._after_key))
        while not (found := await self._look(worker_id, limit, lines=LINES_A_LOOK)):
            locks -= self._after_lock == _FIRST
            keys -= self._after_key == _FIRST
            if locks <= 0 and keys <= 0:
                break
        return found

    async def _look(self, worker_id: int, limit: int, *, lines: int) -> list[ClaimedJob]:
        claim = await queries.claim_jobs(
            self._link, worker_id=worker_id, limit=limit, queues=self._queues, lines=lines,
            after_lock=self._after_lock, after_key=self._after_key,
        )  # fmt: skip
        self._others_wait = claim.others_wait
        self._after_lock, self._after_key = claim.last_lock or _FIRST, claim.last_key or _FIRST
        if claim.seconds is not None:
            self.seconds = max(min(claim.seconds, self.seconds or claim.seconds), SOONEST_SECONDS)
        return [_claimed(row) for row in claim.jobs]


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
        claimed_at=row["claimed_at"],
        owner=row["owner"],
        steps=row["steps"] or 0,
        crashes=row["crashes"] or 0,
        snoozes=row["snoozes"] or 0,
        max_attempts=row["max_attempts"],
        is_late=bool(row["is_late"]),
        is_waited_for=row["lock"] is not None or row["limit_key"] is not None,
    )
