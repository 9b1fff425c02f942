"""A Procrastinate `App` that runs our worker, whichever command starts it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import procrastinate
from procrastinate.app import WorkerOptions
from typing_extensions import Unpack, override

from app.engine.connector import SQLAlchemyAsyncConnector
from app.engine.manager import JobManager
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
        self.timeouts: dict[str, float] = {}
        """Seconds that an attempt of a task may take, by name; one that is not named takes as long as it likes."""

    @override
    def _worker(self, **options: Unpack[WorkerOptions]) -> Worker:
        merged: dict[str, Any] = {**self._worker_options, **self.worker_defaults, **options}
        return Worker(app=self, describe=self._describe, timeouts=self.timeouts, **merged)

    async def work(self, queues: list[str] | None) -> bool:
        """Perform jobs of these queues, or of all, until told to stop.

        Returns:
            Whether a job does not stop, so that only the end of this process will end it.
        """
        async with self._resources() as resources:
            options: WorkerOptions = {"additional_context": resources}
            if queues:
                options["queues"] = queues
            worker = self._worker(**options)
            await worker.run()
        return worker.has_stuck_job

    @override
    async def run_worker_async(self, **options: Unpack[WorkerOptions]) -> None:
        async with self._resources() as resources:
            options["additional_context"] = {**resources, **(options.get("additional_context") or {})}
            await super().run_worker_async(**options)
