"""The worker process: `python -m app.worker_main`."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import uvloop
from procrastinate.exceptions import ConnectorException
from sqlalchemy.ext.asyncio import AsyncEngine

from app.config import Settings, get_settings
from app.engine.connector import translated_errors
from app.engine.schema import missing_revisions
from app.engine.watchdog import EXIT_CODE, Watchdog
from app.errors import ConfigurationError
from app.observability import metrics
from app.observability.logging import configure_logging

logger = logging.getLogger("app.worker")

LOOK_AGAIN_SECONDS = 2.0


def main() -> int:
    """Perform runs until told to stop.

    Returns:
        The exit code: 0 when a stop was asked for, 75 when the process must be started again because a run does not
        stop, 78 when the settings are wrong.
    """
    try:
        settings = get_settings()
        configure_logging(settings)
        return uvloop.run(work(settings))
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the one line for whoever started it
        return 78
    except KeyboardInterrupt:
        return 0


async def work(settings: Settings) -> int:
    """Wait for the schema, then perform runs until told to stop.

    Returns:
        The exit code.
    """
    from app.tasks import procrastinate_app  # it reads the settings, whose mistakes `main` reports

    loop = asyncio.get_running_loop()
    # Threads for every slot, and some more for the resolver, which must not wait for actions.
    loop.set_default_executor(ThreadPoolExecutor(settings.worker_concurrency + 8))
    if settings.metrics_port is not None:
        metrics.serve(settings.metrics_port)
    watchdog = Watchdog(settings.watchdog_seconds)
    watchdog.start(loop)
    async with procrastinate_app.open_async():
        await schema_is_current(procrastinate_app.connector.engine)
        # The program itself is no garbage: not to look through it again and again spares a third of a worker's time.
        gc.collect()
        gc.freeze()
        logger.info("Worker started on %s", ", ".join(settings.worker_queues or ["all queues"]))
        has_stuck_job = await procrastinate_app.work(settings.worker_queues)
    watchdog.stop()
    code = EXIT_CODE if has_stuck_job else 0
    leave_behind_what_does_not_stop(code)
    return code


def leave_behind_what_does_not_stop(code: int) -> None:
    """Exit now if an action ignores its cancellation, or sits in a thread: nobody else can end those."""
    stubborn = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if stubborn:
        logger.error("Leaving %d tasks behind that do not stop", len(stubborn))
        logging.shutdown()
        os._exit(code)


async def schema_is_current(engine: AsyncEngine) -> None:
    """Wait until the database has the schema that this code needs: migrations are run by somebody else."""
    while True:
        try:
            with translated_errors():
                missing = await missing_revisions(engine)
        except ConnectorException as error:
            logger.warning("Waiting for the database: %r", error.__cause__)
        else:
            if not missing:
                return
            logger.warning("Waiting: the database lacks %s. Run: runledger db upgrade", ", ".join(sorted(missing)))
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
