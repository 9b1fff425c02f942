"""Procrastinate as it comes: an application as its own documentation makes one, and its worker process.

`python -m tests.faults.bare_app DSN`. `CONCURRENCY` and `GRACE` are the worker's; with `TICKING` there is a schedule of
every second, with `RECIPE` the documentation's task that retries stalled jobs; `SKEW` moves the worker's clock by so
many seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

import procrastinate
from procrastinate import JobContext
from tests.faults.skew import skewed

STALLED_SECONDS = 2


def make_app(dsn: str) -> procrastinate.App:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))

    @app.task(name="nap")
    async def nap(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @app.task(name="retried_nap", retry=5)
    async def retried_nap(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @app.task(name="pill")
    async def pill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @app.task(name="block")
    async def block(seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - that is the fault

    @app.task(name="hog", pass_context=True)
    async def hog(context: JobContext, seconds: float) -> None:
        await context.app.connector.execute_query_async("SELECT pg_sleep(%(seconds)s)", seconds=seconds)

    @app.task(name="fail_once", pass_context=True, retry=procrastinate.RetryStrategy(max_attempts=3, wait=2))
    async def fail_once(context: JobContext) -> None:
        if not context.job.attempts:
            raise ConnectionError("not yet")

    @app.task(name="tick")
    async def tick(timestamp: int) -> None:
        """What a schedule asks for."""

    @app.task(name="retry_stalled_jobs", queueing_lock="retry_stalled_jobs", pass_context=True)
    async def retry_stalled_jobs(context: JobContext, timestamp: int) -> None:
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_SECONDS):
            await app.job_manager.retry_job(job)

    for asked_for, task in (("TICKING", tick), ("RECIPE", retry_stalled_jobs)):
        if os.environ.get(asked_for):
            app.periodic(cron="* * * * * *")(task)
    return app


async def work(dsn: str) -> None:
    """Perform jobs, with the same short times as our own workers."""
    app = make_app(dsn)
    async with app.open_async():
        await app.run_worker_async(
            concurrency=int(os.environ.get("CONCURRENCY", "10")),
            fetch_job_polling_interval=0.5,
            abort_job_polling_interval=0.5,
            update_heartbeat_interval=0.5,
            stalled_worker_timeout=STALLED_SECONDS,
            shutdown_graceful_timeout=float(os.environ.get("GRACE", "2")),
        )


if __name__ == "__main__":
    with skewed(float(os.environ.get("SKEW", "0"))):
        asyncio.run(work(sys.argv[1]))
