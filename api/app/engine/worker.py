"""The worker: Procrastinate's, with the parts replaced that its faults come from.

Procrastinate's semantics stay: queues, locks, queueing locks, priorities, abort, cron, middleware, context.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from procrastinate import exceptions, jobs, middleware, tasks, utils
from procrastinate import worker as upstream
from procrastinate.job_context import AbortReason, JobContext
from typing_extensions import override

from app.engine.connector import SQLAlchemyAsyncConnector, is_refused_value
from app.engine.endings import Cancelled, Ending, Failed, Lost, Problem, Released, Retried, Succeeded
from app.engine.manager import JobManager
from app.engine.report import one_line, report
from app.engine.rescue import Rescue
from app.errors import NotBegun, RunLost

logger = logging.getLogger(__name__)

UNKNOWN_TASK_DELAY_SECONDS = 30.0
"""A task this worker does not have may belong to the next version of the code: put it back for a while."""

NOT_BEGUN_DELAY_SECONDS = 1.0
ABANDON_SECONDS = 5.0
"""How long a job may take to stop after it was cancelled by a shutdown."""

Describe = Callable[[BaseException], Problem]


class Worker(upstream.Worker):
    """Performs jobs until it is told to stop.

    Args:
        describe: makes the problem object of an error that a task raised.
        sweep_interval: seconds between two looks for abandoned jobs.
        crash_cap: how many lost workers make a job fail.
        options: those of Procrastinate's `Worker`.
    """

    def __init__(self, *, describe: Describe, sweep_interval: float = 10, crash_cap: int = 3, **options: Any) -> None:
        super().__init__(**options)
        self._describe = describe
        self._sweep_interval = sweep_interval
        self._crash_cap = crash_cap
        # Whether the database may hold jobs for us that we do not perform.
        self._in_doubt = False

    @property
    def manager(self) -> JobManager:
        assert isinstance(self.app.job_manager, JobManager)
        return self.app.job_manager

    # The loop ----------------------------------------------------------------------------------------------

    @override
    async def _fetch_and_process_jobs(self) -> None:
        """Claim jobs while there are free slots and jobs, and start each."""
        while await self._has_free_slot():
            # Before the look, not after it: what is announced during the look must lead to another one.
            self._new_job_event.clear()
            job = await self._claim()
            if job is None:
                self._job_semaphore.release()
                return
            self._start(job)

    async def _claim(self) -> jobs.Job | None:
        """The next job; `None` if there is none, or if the database cannot say now."""
        assert self.worker_id is not None
        try:
            if self._in_doubt:
                await self.manager.put_back_unperformed(self.worker_id, self._performing())
                self._in_doubt = False
            return await self.manager.fetch_job(self.queues, self.worker_id)
        except exceptions.ConnectorException as error:
            # It may have claimed a job for us before its answer was lost.
            self._in_doubt = True
            logger.warning("No job could be claimed, trying again at the next poll: %s", one_line(error))
            return None

    def _performing(self) -> set[int]:
        return {context.job.id for context in self._running_jobs.values() if context.job.id is not None}

    async def _has_free_slot(self) -> bool:
        """Take a slot when one is free; false when the worker is told to stop."""
        taking = asyncio.create_task(self._job_semaphore.acquire())
        await utils.wait_any(taking, self._stop_event.wait())
        if not self._stop_event.is_set():
            return True
        if taking.done() and not taking.cancelled():
            self._job_semaphore.release()
        return False

    def _start(self, job: jobs.Job) -> None:
        context = JobContext(
            app=self.app,
            worker_name=self.worker_name,
            worker_queues=self.queues,
            additional_context=dict(self.additional_context or {}),
            job=job,
            abort_reason=lambda: self._job_ids_to_abort.get(job.id or 0),
            start_timestamp=time.time(),
        )
        performing = asyncio.create_task(self._process_job(context), name=f"{job.task_name}[{job.id}]")
        self._running_jobs[performing] = context
        performing.add_done_callback(self._ended)

    def _ended(self, performing: asyncio.Task[Any]) -> None:
        del self._running_jobs[performing]
        self._job_semaphore.release()

    # One job -----------------------------------------------------------------------------------------------

    @override
    async def _process_job(self, context: JobContext) -> None:
        ending = await self._perform(context)
        report(context, await _to_its_end(self._record(context.job, ending)))

    async def _perform(self, context: JobContext) -> Ending:
        task = self.app.tasks.get(context.job.task_name)
        if task is None:
            return Released(UNKNOWN_TASK_DELAY_SECONDS, f"this worker has no task {context.job.task_name!r}")
        try:
            return Succeeded(await self._call(task, context))
        except NotBegun:
            return Released(NOT_BEGUN_DELAY_SECONDS, "the database did not give its run")
        except exceptions.JobAborted:
            return Cancelled()
        except asyncio.CancelledError as error:
            return self._cancelled(task, context, error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is its ending
            return Lost() if _is_lost(error) else self._after(task, context.job, error)

    async def _call(self, task: tasks.Task[..., Any, ...], context: JobContext) -> Any:
        arguments = [context] if task.pass_context else []
        is_async = inspect.iscoroutinefunction(task.func)

        async def call_async() -> Any:
            return await task(*arguments, **context.job.task_kwargs)

        def call_sync() -> Any:
            return task(*arguments, **context.job.task_kwargs)

        async def call() -> Any:
            wrapped = self._resolve_task_middlewares(task, is_async)
            if is_async:
                return await middleware.compose(wrapped, call_async, context, self)()
            result = await utils.sync_to_async(middleware.compose(wrapped, call_sync, context, self))
            return await result if inspect.isawaitable(result) else result

        return await middleware.compose(self.worker_middleware, call, context, self)()

    def _cancelled(self, task: tasks.Task[..., Any, ...], context: JobContext, error: asyncio.CancelledError) -> Ending:
        match context.abort_reason():
            case AbortReason.SHUTDOWN:
                return Released()
            case AbortReason.USER_REQUEST:
                return Cancelled()
            case _:
                # Nobody asked: the task let a cancellation of its own escape.
                return self._after(task, context.job, error)

    def _after(self, task: tasks.Task[..., Any, ...], job: jobs.Job, error: BaseException) -> Ending:
        try:
            return self._decided(task, job, error)
        except Exception:
            # The error's own text, or a retry strategy, may raise: the job must end all the same.
            logger.exception("What was raised by job %s cannot be described", job.id)
            return _UNTOLD

    def _decided(self, task: tasks.Task[..., Any, ...], job: jobs.Job, error: BaseException) -> Ending:
        problem = self._describe(error)
        retry = task.get_retry_exception(exception=error, job=job)
        if retry is None:
            return Failed(problem)
        decision = retry.retry_decision
        delay = (decision.retry_at - utils.utcnow()).total_seconds() if decision.retry_at else 0
        return Retried(problem, max(delay, 0), decision.priority, decision.queue, decision.lock)

    async def _record(self, job: jobs.Job, ending: Ending) -> Ending:
        """Write the ending, again and again while this worker is registered, and return what was written.

        Writing is fenced, so it does no harm to try again; when this worker has gone, others take the job.
        """
        assert job.id is not None
        keeps_queueing_lock = True
        written = False
        while self.worker_id is not None:
            try:
                written = await self._write(job, self.worker_id, ending, keeps_queueing_lock)
                break
            except (TypeError, ValueError, RecursionError):
                logger.exception("How job %s ended cannot be written as JSON", job.id)
                ending = _UNTOLD
            except exceptions.ConnectorException as error:
                if isinstance(error, exceptions.UniqueViolation) and keeps_queueing_lock:
                    # Another job waits under its queueing lock. Nothing is lost if this one waits without.
                    keeps_queueing_lock = False
                elif is_refused_value(error) and ending != _UNTOLD:
                    ending = _UNTOLD
                else:
                    logger.warning("The end of job %s is not written yet: %s", job.id, one_line(error))
                    await asyncio.sleep(random.uniform(0.1, 1))
        self._job_ids_to_abort.pop(job.id, None)
        return ending if written else Lost()

    async def _write(self, job: jobs.Job, worker_id: int, ending: Ending, keeps_queueing_lock: bool) -> bool:
        written = await self.manager.end_job(job, worker_id, ending, keeps_queueing_lock=keeps_queueing_lock)
        if written and self._deletes(ending):
            with contextlib.suppress(exceptions.ConnectorException):
                await self.manager.delete_ended_job(job)
        return written

    def _deletes(self, ending: Ending) -> bool:
        match self.delete_jobs:
            case jobs.DeleteJobCondition.ALWAYS:
                return isinstance(ending, Succeeded | Failed | Cancelled)
            case jobs.DeleteJobCondition.SUCCESSFUL:
                return isinstance(ending, Succeeded)
            case jobs.DeleteJobCondition.NEVER:
                return False

    # What goes on beside the jobs --------------------------------------------------------------------------

    @override
    def _start_side_tasks(self) -> list[asyncio.Task[Any]]:
        loops: dict[str, Callable[[], Awaitable[Any]]] = {
            "heartbeat": self._update_heartbeat,
            "schedule": self._periodic_deferrer,
            "abort requests": self._poll_jobs_to_abort,
            "rescue": self._rescue,
        }
        if self.listen_notify:
            loops["listener"] = self._listen
        return [asyncio.create_task(_for_ever(name, loop), name=name) for name, loop in loops.items()]

    @override
    async def _update_heartbeat(self) -> NoReturn:
        while True:
            await asyncio.sleep(self.update_heartbeat_interval)
            assert self.worker_id is not None
            await self.manager.update_heartbeat(self.worker_id)

    async def _rescue(self) -> None:
        assert isinstance(self.app.connector, SQLAlchemyAsyncConnector)
        rescue = Rescue(self.app.connector, self.stalled_worker_timeout, self._crash_cap)
        while True:
            if await rescue.sweep():
                self._new_job_event.set()
            self._in_doubt = True
            await asyncio.sleep(self._sweep_interval)

    async def _listen(self) -> None:
        await self.manager.listen_for_jobs(on_notification=self._handle_notification, queues=self.queues)

    # The end -----------------------------------------------------------------------------------------------

    @override
    async def _shutdown(self, side_tasks: list[asyncio.Task[Any]]) -> None:
        await self._drain()
        # Not before: a worker that drains still lives, and can still be asked to cancel a job.
        await utils.cancel_and_capture_errors(side_tasks)
        await self._unregister()
        logger.info("Worker stopped")

    async def _drain(self) -> None:
        if self._running_jobs:
            logger.info("Waiting for %d running jobs", len(self._running_jobs))
            await asyncio.wait(self._running_jobs, timeout=self.shutdown_graceful_timeout)
        if self._running_jobs:
            logger.info("Putting %d running jobs back", len(self._running_jobs))
            for performing, context in list(self._running_jobs.items()):
                self._abort_job(performing, context, AbortReason.SHUTDOWN)
            await asyncio.wait(self._running_jobs, timeout=ABANDON_SECONDS)
        if self._running_jobs:
            # Without its row in the database, this worker holds them no longer: others take them.
            logger.error("%d jobs do not stop; other workers will perform them", len(self._running_jobs))

    async def _unregister(self) -> None:
        assert self.worker_id is not None
        with contextlib.suppress(exceptions.ConnectorException):
            await self.manager.unregister_worker(self.worker_id)
        self.worker_id = None


_UNTOLD = Failed(
    Problem(
        {
            "type": "/problems/untellable",
            "title": "It ended in a way that cannot be told",
            "detail": "Its result or its error cannot be written as JSON, or looking at it raised: see the log.",
        },
        traceback="",
    )
)


async def _to_its_end(work: Awaitable[Ending]) -> Ending:
    """Await `work` even if this task is cancelled meanwhile."""
    recording = asyncio.ensure_future(work)
    while not recording.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(recording)
    return recording.result()


def _is_lost(error: BaseException) -> bool:
    # A task group of the action's wraps what its tasks raise.
    return isinstance(error, RunLost) or (isinstance(error, BaseExceptionGroup) and bool(error.subgroup(RunLost)))


async def _for_ever(name: str, loop: Callable[[], Awaitable[Any]]) -> None:
    """Keep a side task alive: one that ends would end the worker, or silence the watch over the others."""
    while True:
        try:
            await loop()
            await asyncio.Event().wait()
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker goes on
            logger.warning("The %s loop broke off, starting it again: %s", name, one_line(error))
            await asyncio.sleep(random.uniform(0.1, 1))
