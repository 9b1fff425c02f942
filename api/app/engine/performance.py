"""One attempt of a job, from its task to its ending."""

from __future__ import annotations

import asyncio
import enum
import functools
import inspect
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from procrastinate import exceptions, middleware, tasks, utils
from procrastinate.job_context import AbortReason, JobContext
from procrastinate.retry import BaseRetryStrategy

from app.engine.claims import ClaimedJob
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
from app.engine.retry import Retry
from app.errors import NotBegun, RunLost, RunWaits

if TYPE_CHECKING:
    from app.engine.worker import Worker

logger = logging.getLogger(__name__)

UNKNOWN_TASK_DELAY_SECONDS = 30.0
"""A task this worker does not have may belong to the next version of the code: put it back for a while."""
NOT_BEGUN_DELAY_SECONDS = 1.0
STUCK_SECONDS = 10.0
"""How long a job may go on after it was stopped for its timeout."""

Describe = Callable[[BaseException], Problem]
_is_async = functools.cache(inspect.iscoroutinefunction)


class Stop(enum.Enum):
    """Why a performance is stopped before its end."""

    ASKED = enum.auto()
    SHUTDOWN = enum.auto()
    TIMEOUT = enum.auto()
    LOST = enum.auto()


class Performance:
    """Performs a job in a task of its own; `on_end` is told its ending, once.

    Args:
        timeout: seconds, or `None` for as long as it takes.
        on_end: called with the performance when `ending` is known.
        on_stuck: called if the job goes on although its time is over; `ending` is known then.
    """

    def __init__(
        self,
        worker: Worker,
        job: ClaimedJob,
        *,
        timeout: float | None,
        on_end: Callable[[Performance], None],
        on_stuck: Callable[[Performance], None],
    ) -> None:
        self.job = job
        self.context = JobContext(
            app=worker.app,
            worker_name=worker.worker_name,
            worker_queues=worker.queues,
            additional_context={**(worker.additional_context or {}), "extend": self.extend},
            job=job,
            abort_reason=self._abort_reason,
            start_timestamp=time.time(),
        )
        self.ending: Ending | None = None
        self._worker = worker
        self._stop: Stop | None = None
        self._on_end = on_end
        self._on_stuck = on_stuck
        self._timer: asyncio.TimerHandle | None = None
        self.task = asyncio.create_task(self._perform(), name=job.task_name)
        self.task.add_done_callback(self._ended)
        if timeout is not None:
            self.extend(timeout)

    def extend(self, seconds: float) -> None:
        """From now on, it may take this many seconds, whatever its timeout was."""
        if self._timer is not None:
            self._timer.cancel()
        if self._stop is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._time_is_over)

    def stop(self, why: Stop) -> None:
        """Stop it. The first reason counts; code that runs in a thread stops when it likes."""
        if self._stop is None:
            self._stop = why
            task = self._worker.app.tasks.get(self.job.task_name)
            if task is None or _is_async(task.func):
                self.task.cancel()

    def _abort_reason(self) -> AbortReason | None:
        match self._stop:
            case None:
                return None
            case Stop.SHUTDOWN:
                return AbortReason.SHUTDOWN
            case _:
                return AbortReason.USER_REQUEST

    def _time_is_over(self) -> None:
        self.stop(Stop.TIMEOUT)
        self._timer = asyncio.get_running_loop().call_later(STUCK_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if self.ending is None:
            self.ending = self._stopped(asyncio.CancelledError())
            self._on_stuck(self)

    def _ended(self, task: asyncio.Task[Ending]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.ending is None:
            # Cancelled before its first step, it has no result.
            self.ending = self._stopped(asyncio.CancelledError()) if task.cancelled() else task.result()
            self._on_end(self)

    async def _perform(self) -> Ending:
        task = self._worker.app.tasks.get(self.job.task_name)
        if task is None:
            return Released(UNKNOWN_TASK_DELAY_SECONDS, f"this worker has no task {self.job.task_name!r}")
        try:
            return Succeeded(await self._call(task))
        except NotBegun:
            return Released(NOT_BEGUN_DELAY_SECONDS, "the database did not give its run")
        except exceptions.JobAborted:
            return Cancelled()
        except asyncio.CancelledError as error:
            return self._stopped(error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is its ending
            if _is_lost(error):
                return Lost()
            return Waiting() if _waits(error) else self._after(error)

    async def _call(self, task: tasks.Task[..., Any, ...]) -> Any:
        worker, context = self._worker, self.context
        arguments = [context] if task.pass_context else []
        is_async = _is_async(task.func)

        async def call_async() -> Any:
            return await task(*arguments, **self.job.task_kwargs)

        def call_sync() -> Any:
            return task(*arguments, **self.job.task_kwargs)

        async def call() -> Any:
            wrapped = worker._resolve_task_middlewares(task, is_async)
            if is_async:
                return await middleware.compose(wrapped, call_async, context, worker)()
            result = await utils.sync_to_async(middleware.compose(wrapped, call_sync, context, worker))
            return await result if inspect.isawaitable(result) else result

        return await middleware.compose(worker.worker_middleware, call, context, worker)()

    def _stopped(self, error: asyncio.CancelledError) -> Ending:
        match self._stop:
            case Stop.SHUTDOWN:
                return Released()
            case Stop.ASKED:
                return Cancelled()
            case Stop.LOST:
                return Lost()
            case Stop.TIMEOUT:
                return self._after(TimeoutError("It took longer than its timeout allows. run.extend() asks for more."))
            case None:
                # Nobody asked: the task let a cancellation of its own escape.
                return self._after(error)

    def _after(self, error: BaseException) -> Ending:
        try:
            return self._decided(self._worker.app.tasks[self.job.task_name], error)
        except Exception:
            # The error's own text, or a retry strategy, may raise: the job must end all the same.
            logger.exception("What was raised by job %s cannot be described", self.job.id)
            return UNTOLD

    def _decided(self, task: tasks.Task[..., Any, ...], error: BaseException) -> Ending:
        problem = self._worker.describe(error)
        snooze = self._snooze(task.retry_strategy, error)
        if snooze is not None:
            return Snoozed(problem, snooze)
        retry = task.get_retry_exception(exception=error, job=self.job)
        if retry is None:
            return Failed(problem)
        decision = retry.retry_decision
        delay = (decision.retry_at - utils.utcnow()).total_seconds() if decision.retry_at else 0
        return Retried(problem, max(delay, 0), decision.priority, decision.queue, decision.lock)

    def _snooze(self, strategy: BaseRetryStrategy | None, error: BaseException) -> float | None:
        # Without a run, nobody counts how often: it could go on for ever.
        if self.job.run_id is None or not isinstance(strategy, Retry):
            return None
        return strategy.snooze(error, snoozes=self.job.snoozes)


def _is_lost(error: BaseException) -> bool:
    # A task group of the action's wraps what its tasks raise.
    return isinstance(error, RunLost) or (isinstance(error, BaseExceptionGroup) and bool(error.subgroup(RunLost)))


def _waits(error: BaseException) -> bool:
    # Where something else went wrong beside it, that is the ending.
    return isinstance(error, RunWaits) or (isinstance(error, BaseExceptionGroup) and error.split(RunWaits)[1] is None)
