"""The worker: Procrastinate's, with the parts replaced that its faults and its slowness come from.

Procrastinate's semantics stay: queues, locks, queueing locks, priorities, abort, cron, middleware, context.

    claims.py       jobs come in batches, as many as there are free slots
    performance.py  each is performed in a task of its own, to its ending
    finisher.py     endings are written in batches, fenced
    due.py          scheduled jobs wait in line when their time has come
    rescue.py       what lost workers held goes back
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from procrastinate import exceptions, jobs, utils
from procrastinate import worker as upstream
from procrastinate.job_context import JobContext
from typing_extensions import override

from app import __version__
from app.engine import due, queries
from app.engine.adoption import register_limits
from app.engine.claims import ClaimedJob, Claims
from app.engine.connector import SQLAlchemyAsyncConnector
from app.engine.endings import TOO_LATE, Ending, Released
from app.engine.finisher import Finisher
from app.engine.heartbeat import Heartbeat
from app.engine.limits import Limit
from app.engine.link import Links
from app.engine.manager import JobManager
from app.engine.performance import Describe, Performance, Stop
from app.engine.report import one_line
from app.engine.rescue import Rescue
from app.engine.schedule import Schedule, Scheduler

logger = logging.getLogger(__name__)

ABANDON_SECONDS = 5.0
"""How long a job may take to stop after it was cancelled by a shutdown."""
LAST_WRITES_SECONDS = 5.0
"""How long a shutdown waits for a database that does not take the last endings, or the farewell."""
QUARANTINE_SECONDS = 1.0


class Worker(upstream.Worker):
    """Performs jobs until it is told to stop.

    Args:
        describe: makes the problem object of an error that a task raised.
        timeouts: seconds that a task may take, by its name.
        schedules: what is deferred by the clock.
        limits: how many jobs of a task may run at once, and how often one may start, by its name.
        sweep_interval: seconds between two looks for abandoned jobs.
        crash_cap: how many lost workers make a job fail.
        options: those of Procrastinate's `Worker`.
    """

    def __init__(
        self,
        *,
        describe: Describe,
        timeouts: dict[str, float] | None = None,
        schedules: Sequence[Schedule] = (),
        limits: Mapping[str, Limit] | None = None,
        sweep_interval: float = 10,
        crash_cap: int = 3,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.describe = describe
        self.has_stuck_job = False
        """Whether a job went on after its time: only the end of this process will end it."""
        self._timeouts = timeouts or {}
        self._limits = limits or {}
        self._limits_are_known = False
        self._sweep_interval = sweep_interval
        self._crash_cap = crash_cap
        assert isinstance(self.app.connector, SQLAlchemyAsyncConnector)
        # Connections that no action can use up.
        self._connector = self.app.connector.with_own_pool()
        self._manager = JobManager(self._connector)
        self._links = Links(self._connector.engine, timeout=self._connector.timeout)
        self._heartbeat = Heartbeat(self._links.heartbeat, self._about(), interval=self.update_heartbeat_interval)
        self._scheduler = Scheduler(self._links.care, schedules, self.app.tasks)
        self._due = due.Due(
            self._links.care,
            poll=self.fetch_job_polling_interval,
            hears=self.listen_notify,
            on_due=self._new_job_event.set,
        )
        self._claims = Claims(self._links.claims, None if self.queues is None else list(self.queues))
        self._finisher = Finisher(
            self._links.endings, delete_jobs=self.delete_jobs, on_written=self._look_again_after_writing
        )
        self._performances: dict[int, Performance] = {}
        # Whether more jobs may wait than there were free slots.
        self._more_wait = False
        # Whether the database may hold jobs for us that we do not perform.
        self._in_doubt = False

    def _about(self) -> queries.AboutWorker:
        return queries.AboutWorker(
            socket.gethostname(),
            os.getpid(),
            __version__,
            None if self.queues is None else list(self.queues),
            sorted(self.app.tasks),
            self.concurrency,
        )

    # The loop ----------------------------------------------------------------------------------------------

    @override
    async def _fetch_and_process_jobs(self) -> None:
        """Claim and start jobs until told to stop, or with `wait=False` until there is nothing left to do."""
        while not self._stop_event.is_set():
            # Before the look, not after it: what is announced during the look must lead to another one.
            self._new_job_event.clear()
            free = self._free_slots()
            found = await self._claim(free) if free else []
            await self._start_all(found)
            self._more_wait = len(found) == free
            if found:
                # Let them begin, and those that need not wait for anything end.
                await asyncio.sleep(0)
            elif await self._is_done():
                return
            if not (self._more_wait and self._free_slots()):
                await self._wait_for_news()

    async def _is_done(self) -> bool:
        """With `wait=False`: nothing is left to do, and nothing has become due meanwhile."""
        if self.wait or self._performances or len(self._finisher) or self._claims.is_contended:
            return False
        with contextlib.suppress(exceptions.ConnectorException):
            if (await queries.release_due_jobs(self._links.claims, limit=due.BATCH))[0]:
                self._new_job_event.set()
        return not self._new_job_event.is_set()

    def _free_slots(self) -> int:
        if self._finisher.is_stuck:
            return 0
        # What has ended and is not written needs no slot, but it must not pile up either.
        return self.concurrency - max(len(self._performances), len(self._finisher) - self.concurrency)

    async def _wait_for_news(self) -> None:
        seconds = self.fetch_job_polling_interval
        if self._claims.seconds is not None and self._free_slots():
            # There will be room under a limit.
            seconds = min(seconds, self._claims.seconds)
        await utils.wait_any(self._new_job_event.wait(), self._stop_event.wait(), asyncio.sleep(seconds))

    def _look_again_after_writing(self, jobs: list[ClaimedJob]) -> None:
        if self._more_wait or not self.wait or any(job.is_waited_for for job in jobs):
            self._new_job_event.set()

    async def _claim(self, limit: int) -> list[ClaimedJob]:
        """The next jobs; none if the database cannot say now."""
        assert self.worker_id is not None
        try:
            if not self._limits_are_known:
                await register_limits(self._links.claims, self._limits, tasks=sorted(self.app.tasks))
                self._limits_are_known = True
            if self._in_doubt:
                await self._put_back_unperformed(self.worker_id)
                self._in_doubt = False
            return await self._claims.claim(self.worker_id, limit)
        except exceptions.ConnectorException as error:
            # It may have claimed jobs for us before its answer was lost.
            self._in_doubt = True
            logger.warning("No job could be claimed, trying again at the next poll: %s", one_line(error))
            return []

    async def _put_back_unperformed(self, worker_id: int) -> None:
        """Put back what the database holds for us and we do not perform: claims whose answer was lost."""
        for held in await queries.list_held_jobs(self._links.claims, worker_id=worker_id):
            if held["id"] not in self._performances and held["id"] not in self._finisher:
                logger.warning("Job %s was claimed and never began; it goes back", held["id"])
                back = queries.EndedJob(held["id"], held["attempts"], "todo", attempts_made=0)
                try:
                    await queries.end_jobs(self._links.claims, worker_id=worker_id, ended=[back])
                except exceptions.UniqueViolation:
                    # Another job waits under its queueing lock. Nothing is lost if this one waits without.
                    back = back._replace(keeps_queueing_lock=False)
                    await queries.end_jobs(self._links.claims, worker_id=worker_id, ended=[back])

    async def _start_all(self, jobs: list[ClaimedJob]) -> None:
        """Start what was claimed; of jobs on their last life one, when the others are safely back in the queue."""
        last_lives = [job for job in jobs if self._is_on_its_last_life(job)]
        apart = last_lives[1:]
        for job in apart:
            self._put_apart(job)
        if apart:
            # Not longer than a call of the database: one that does not answer may not keep the rest from starting.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._connector.timeout):
                    await self._finisher.all_written()
        for job in jobs:
            if job not in apart:
                self._start(job)

    def _start(self, job: ClaimedJob) -> None:
        if self._stop_event.is_set():
            self._finish_at_once(job, Released())
        elif job.is_late:
            self._finish_at_once(job, TOO_LATE)
        elif self._is_on_its_last_life(job) and any(
            self._is_on_its_last_life(performance.job) for performance in self._performances.values()
        ):
            self._put_apart(job)
        else:
            self._performances[job.id] = Performance(
                self,
                job,
                timeout=self._timeouts.get(job.task_name),
                on_end=self._ended,
                on_stuck=self._stuck,
            )

    def _put_apart(self, job: ClaimedJob) -> None:
        # One of them kills workers, and the others were only near it. Apart, they cannot take each other along.
        self._finish_at_once(job, Released(QUARANTINE_SECONDS, "another run that lost its workers is performed"))

    def _is_on_its_last_life(self, job: ClaimedJob) -> bool:
        return job.crashes >= max(self._crash_cap - 1, 1)

    def _finish_at_once(self, job: ClaimedJob, ending: Ending) -> None:
        self._finisher.put(JobContext(app=self.app, job=job, start_timestamp=0, abort_reason=lambda: None), ending)

    def _ended(self, performance: Performance) -> None:
        del self._performances[performance.job.id]
        assert performance.ending is not None
        self._finisher.put(performance.context, performance.ending)
        if self._more_wait:
            self._new_job_event.set()

    def _stuck(self, performance: Performance) -> None:
        logger.error("Job %s ignores that its time is over; this worker stops after its other jobs", performance.job.id)
        self._ended(performance)
        self.has_stuck_job = True
        self.stop()

    # What goes on beside the jobs --------------------------------------------------------------------------

    @override
    def _start_side_tasks(self) -> list[asyncio.Task[Any]]:
        loops: dict[str, Callable[[], Awaitable[Any]]] = {
            "finish": self._finish,
            "heartbeat": self._update_heartbeat,
            "schedule": self._fire_schedules,
            "watch": self._watch,
            "rescue": self._rescue,
        }
        if self.wait:
            loops["due"] = self._due.run
        if self.listen_notify:
            loops["listener"] = self._listen
        return [asyncio.create_task(_for_ever(name, loop), name=name) for name, loop in loops.items()]

    async def _finish(self) -> None:
        assert self.worker_id is not None
        await self._finisher.run(self.worker_id)

    @override
    async def _update_heartbeat(self) -> NoReturn:
        assert self.worker_id is not None
        await self._heartbeat.run(self.worker_id)

    async def _fire_schedules(self) -> None:
        await self._scheduler.run()

    async def _watch(self) -> NoReturn:
        """Stop the jobs that somebody asked to stop, and those that are no longer ours."""
        while True:
            await asyncio.sleep(self.abort_job_polling_interval)
            if performances := dict(self._performances):
                assert self.worker_id is not None
                rows = await queries.list_held_jobs(self._links.care, worker_id=self.worker_id)
                held = {row["id"]: row for row in rows}
                for job_id, performance in performances.items():
                    if job_id not in held or held[job_id]["attempts"] != performance.job.attempts:
                        performance.stop(Stop.LOST)
                self._handle_abort_jobs_requested(row["id"] for row in rows if row["abort_requested"])

    @override
    def _handle_abort_jobs_requested(self, job_ids: Iterable[int]) -> None:
        for job_id in job_ids:
            if performance := self._performances.get(job_id):
                performance.stop(Stop.ASKED)

    async def _rescue(self) -> NoReturn:
        rescue = Rescue(self._links.care, self.stalled_worker_timeout, self._crash_cap)
        while True:
            if self._heartbeat.may_judge(self.stalled_worker_timeout) and await rescue.sweep():
                self._new_job_event.set()
            self._in_doubt = True
            await asyncio.sleep(self._sweep_interval)

    @override
    async def _handle_notification(self, *, channel: str, notification: jobs.Notification) -> None:
        self._due.ring()
        await super()._handle_notification(channel=channel, notification=notification)

    async def _listen(self) -> None:
        await self._manager.listen_for_jobs(on_notification=self._handle_notification, queues=self.queues)

    # The end -----------------------------------------------------------------------------------------------

    @override
    async def _shutdown(self, side_tasks: list[asyncio.Task[Any]]) -> None:
        await self._drain()
        # Not before: a worker that drains still lives, and can still be asked to cancel a job.
        await utils.cancel_and_capture_errors(side_tasks)
        await self._unregister()
        self._links.close()
        await self._connector.close_async()
        logger.info("Worker stopped")

    async def _drain(self) -> None:
        if self._performances:
            logger.info("Waiting for %d running jobs", len(self._performances))
            await self._until_ended(self.shutdown_graceful_timeout)
        if self._performances:
            logger.info("Putting %d running jobs back", len(self._performances))
            for performance in list(self._performances.values()):
                performance.stop(Stop.SHUTDOWN)
            await self._until_ended(ABANDON_SECONDS)
        if self._performances:
            # Without its row in the database, this worker holds them no longer: others take them.
            logger.error("%d jobs do not stop; other workers will perform them", len(self._performances))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITES_SECONDS):
                await self._finisher.all_written()
        if len(self._finisher):
            logger.error("The ends of %d jobs could not be written; others will perform them", len(self._finisher))

    async def _until_ended(self, timeout: float | None) -> None:
        await asyncio.wait([performance.task for performance in self._performances.values()], timeout=timeout)

    async def _unregister(self) -> None:
        assert self.worker_id is not None
        with contextlib.suppress(exceptions.ConnectorException, TimeoutError):
            async with asyncio.timeout(LAST_WRITES_SECONDS):
                await self._manager.unregister_worker(self.worker_id)
        self.worker_id = None


async def _for_ever(name: str, loop: Callable[[], Awaitable[Any]]) -> None:
    """Keep a side task alive: one that ends would end the worker, or silence the watch over the others."""
    while True:
        try:
            await loop()
            await asyncio.Event().wait()
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker goes on
            logger.warning("The %s loop broke off, starting it again: %s", name, one_line(error))
            await asyncio.sleep(random.uniform(0.1, 1))
