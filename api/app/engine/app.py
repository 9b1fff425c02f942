"""A Procrastinate `App` that runs our worker, whichever command starts it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import procrastinate
from procrastinate.app import WorkerOptions
from procrastinate.tasks import ConfigureTaskOptions, Task
from typing_extensions import Unpack, override

from app.engine.connector import SQLAlchemyAsyncConnector
from app.engine.limits import Limit
from app.engine.manager import JobManager
from app.engine.schedule import Missed, Schedule
from app.engine.worker import Describe, Worker

Resources = Callable[[], contextlib.AbstractAsyncContextManager[dict[str, Any]]]


class App(procrastinate.App):
    """Procrastinate's `App` with a fenced manager and a worker that is hard to kill.

    Args:
        describe: makes the problem object of an error that a task raised.
        resources: opened when a worker starts and closed when it ends; every job finds them in its context.
        worker_options: what our worker takes beyond Procrastinate's options.
    """

    connector: SQLAlchemyAsyncConnector  # pyright: ignore[reportIncompatibleVariableOverride]
    job_manager: JobManager  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        *,
        connector: SQLAlchemyAsyncConnector,
        describe: Describe,
        resources: Resources,
        worker_options: dict[str, Any],
        worker_defaults: WorkerOptions,
    ) -> None:
        super().__init__(connector=connector, worker_defaults=worker_defaults)
        self.job_manager = JobManager(connector)  # pyright: ignore[reportIncompatibleVariableOverride]
        self._describe = describe
        self._resources = resources
        self._worker_options = worker_options
        self.schedules: list[Schedule] = []
        self.timeouts: dict[str, float] = {}
        """Seconds that an attempt of a task may take, by name; one that is not named takes as long as it likes."""
        self.limits: dict[str, Limit] = {}
        """What the jobs of a task may take together, by name; one that is not named has no limit."""

    @override
    def periodic(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        *,
        cron: str,
        periodic_id: str = "",
        zone: str = "UTC",
        missed: Missed = "one",
        **configure_kwargs: Unpack[ConfigureTaskOptions],
    ) -> Callable[[Task[..., Any, ...]], Task[..., Any, ...]]:
        """Defer a task whenever `cron` says so, once a tick however many workers there are.

        Args:
            cron: five fields, or six, the last being seconds.
            periodic_id: tells two schedules of one task apart.
            zone: whose clocks: an IANA name.
            missed: what happens to ticks that came while no worker was there: `"skip"` (no run), `"one"` (a run of the
                newest), or `AllUpTo(n)` (a run each of the newest n).
            configure_kwargs: of `Task.configure`. The task also gets `timestamp`, the tick in seconds since 1970.

        Raises:
            ValueError: the cron, the zone or `missed` cannot be understood.
        """
        register = super().periodic(cron=cron, periodic_id=periodic_id, **configure_kwargs)

        def decorate(task: Task[..., Any, ...]) -> Task[..., Any, ...]:
            schedule = Schedule(
                task.name, periodic_id, cron, zone, missed, lambda: task.configure(**configure_kwargs).job
            )
            schedule.check()
            self.schedules.append(schedule)
            return register(task)

        return decorate

    @override
    def _worker(self, **options: Unpack[WorkerOptions]) -> Worker:
        merged: dict[str, Any] = {**self._worker_options, **self.worker_defaults, **options}
        return Worker(
            app=self,
            describe=self._describe,
            timeouts=self.timeouts,
            schedules=self.schedules,
            limits=self.limits,
            **merged,
        )

    async def work(self, queues: Sequence[str]) -> bool:
        """Perform jobs of these queues, or of all if none is named, until told to stop.

        Returns:
            Whether a job does not stop, so that only the end of this process will end it.
        """
        async with self._resources() as resources:
            options: WorkerOptions = {"additional_context": resources}
            if queues:
                options["queues"] = [*queues]
            worker = self._worker(**options)
            await worker.run()
        return worker.has_stuck_job

    @override
    async def run_worker_async(self, **options: Unpack[WorkerOptions]) -> None:
        async with self._resources() as resources:
            options["additional_context"] = {**resources, **(options.get("additional_context") or {})}
            await super().run_worker_async(**options)
