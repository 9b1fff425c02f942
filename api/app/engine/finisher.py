"""The finish: how attempts ended is written in batches, fenced, and again until it is written."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

from procrastinate import exceptions
from procrastinate.job_context import JobContext
from procrastinate.jobs import DeleteJobCondition

from app.engine import queries
from app.engine.claims import ClaimedJob
from app.engine.connector import is_refused_value
from app.engine.endings import (
    UNTOLD,
    Cancelled,
    Ending,
    Failed,
    Lost,
    Problem,
    Released,
    Retried,
    Snoozed,
    Succeeded,
    Waiting,
)
from app.engine.link import Link
from app.engine.queries import EndedJob, ParkedJob
from app.engine.report import one_line, report

logger = logging.getLogger(__name__)

_to_json = json.JSONEncoder(allow_nan=False).encode
BATCH = 500
PAUSE_SECONDS = (0.1, 1.0)


class Finisher:
    """Writes endings, all that came together in one statement, as long as its worker is registered.

    Writing is fenced, so it does no harm to write again; when the worker has gone, others take its jobs.

    Args:
        on_written: called after each write, with the jobs whose ends need nobody any more.
    """

    def __init__(
        self, link: Link, *, delete_jobs: DeleteJobCondition, on_written: Callable[[list[ClaimedJob]], None]
    ) -> None:
        self._link = link
        self._delete_jobs = delete_jobs
        self._on_written = on_written
        self._unwritten: dict[int, _Unwritten] = {}
        self._arrived = asyncio.Event()
        self._all_written = asyncio.Event()
        self._all_written.set()
        self.is_stuck = False
        """Whether the last write failed, and the database may know less than it should."""

    def __len__(self) -> int:
        return len(self._unwritten)

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._unwritten

    def put(self, context: JobContext, ending: Ending) -> None:
        """Take an ending to be written."""
        job = context.job
        assert isinstance(job, ClaimedJob)
        try:
            row = _row(job, ending)
        except (TypeError, ValueError, RecursionError):
            logger.exception("How job %s ended cannot be written as JSON", job.id)
            ending, row = UNTOLD, _row(job, UNTOLD)
        self._unwritten[job.id] = _Unwritten(context, job, ending, row)
        self._all_written.clear()
        self._arrived.set()

    async def all_written(self) -> None:
        """Wait until there is nothing to write."""
        await self._all_written.wait()

    async def run(self, worker_id: int) -> None:
        """Write endings until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while batch := list(islice(self._unwritten.values(), BATCH)):
                for alike in ([one for one in batch if one.parks == parks] for parks in (False, True)):
                    if alike:
                        await self._write_until_written(worker_id, alike)
            self._all_written.set()

    async def _write_until_written(self, worker_id: int, batch: list[_Unwritten]) -> None:
        while True:
            try:
                await self._write(worker_id, batch)
                self.is_stuck = False
                return
            except exceptions.ConnectorException as error:
                if is_refused_value(error) and len(batch) > 1:
                    # One of them cannot be written as it is; the others need not wait for it.
                    for one in batch:
                        await self._write_until_written(worker_id, [one])
                    return
                if is_refused_value(error) and (mended := _mended(batch[0], error)) is not None:
                    batch = [mended]
                    continue
                self.is_stuck = True
                logger.warning("The ends of %d jobs are not written yet: %s", len(batch), one_line(error))
                await asyncio.sleep(random.uniform(*PAUSE_SECONDS))

    async def _write(self, worker_id: int, batch: list[_Unwritten]) -> None:
        written = await self._store(worker_id, [one.row for one in batch])
        if deleted := [one.job.id for one in batch if one.job.id in written and self._deletes(one.ending)]:
            with contextlib.suppress(exceptions.ConnectorException):
                await queries.delete_ended_jobs(self._link, job_ids=deleted)
        for one in batch:
            # A job that was put back may have been claimed, and have ended again, before the answer came.
            if self._unwritten[one.job.id].context is one.context:
                del self._unwritten[one.job.id]
            report(one.context, one.ending if one.job.id in written else Lost())
        self._on_written([one.job for one in batch])

    async def _store(self, worker_id: int, rows: list[EndedJob | ParkedJob]) -> set[int]:
        if ended := [row for row in rows if isinstance(row, EndedJob)]:
            return await queries.end_jobs(self._link, worker_id=worker_id, ended=ended)
        parked = [row for row in rows if isinstance(row, ParkedJob)]
        return await queries.park_jobs(self._link, worker_id=worker_id, parked=parked)

    def _deletes(self, ending: Ending) -> bool:
        match self._delete_jobs:
            case DeleteJobCondition.ALWAYS:
                return isinstance(ending, Succeeded | Failed | Cancelled)
            case DeleteJobCondition.SUCCESSFUL:
                return isinstance(ending, Succeeded)
            case DeleteJobCondition.NEVER:
                return False


@dataclass(frozen=True, slots=True)
class _Unwritten:
    context: JobContext
    job: ClaimedJob
    ending: Ending
    row: EndedJob | ParkedJob

    @property
    def parks(self) -> bool:
        return isinstance(self.row, ParkedJob)


def _mended(refused: _Unwritten, error: exceptions.ConnectorException) -> _Unwritten | None:
    """What can be written in the place of what the database refused, if there is anything."""
    if isinstance(error, exceptions.UniqueViolation) and refused.row.keeps_queueing_lock:
        # Another job waits under its queueing lock. Nothing is lost if this one waits without.
        return replace(refused, row=refused.row._replace(keeps_queueing_lock=False))
    if refused.ending != UNTOLD:
        return replace(refused, ending=UNTOLD, row=_row(refused.job, UNTOLD))
    return None


def _row(job: ClaimedJob, ending: Ending) -> EndedJob | ParkedJob:
    match ending:
        case Succeeded(result=result):
            return EndedJob(job.id, job.attempts, "succeeded", result=_to_json(result))
        case Failed(problem=problem):
            return EndedJob(job.id, job.attempts, "failed", error=_json(problem), traceback=problem.traceback)
        case Retried(problem=problem):
            return EndedJob(
                job.id, job.attempts, "todo", delay=ending.delay, error=_json(problem), traceback=problem.traceback,
                priority=ending.priority, queue=ending.queue, lock=ending.lock,
            )  # fmt: skip
        case Snoozed(problem=problem, delay=delay):
            return EndedJob(
                job.id, job.attempts, "todo", attempts_made=0, claimed_at=job.claimed_at, is_snoozed=True,
                delay=delay, error=_json(problem), traceback=problem.traceback,
            )  # fmt: skip
        case Cancelled():
            return EndedJob(job.id, job.attempts, "aborted")
        case Released(delay=delay):
            return EndedJob(
                job.id, job.attempts, "todo", attempts_made=0, claimed_at=job.claimed_at, delay=delay
            )  # fmt: skip
        case Waiting():
            return ParkedJob(job.id, job.attempts, job.claimed_at)
        case Lost():
            # Whoever holds the job is not touched; if nobody does, because the run was deleted, it must not stay.
            return EndedJob(job.id, job.attempts, "failed", error=_LOST)


def _json(problem: Problem) -> str:
    return _to_json(problem.document)


_LOST = _to_json({"type": "/problems/run-lost", "title": "Run lost"})
