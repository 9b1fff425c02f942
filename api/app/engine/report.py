"""How jobs ended: a log line each, and a measurement for whoever collects metrics."""

from __future__ import annotations

import logging
import time
import traceback

from procrastinate.job_context import JobContext

from app.engine.endings import Cancelled, Ending, Failed, Lost, Released, Retried, Snoozed, Succeeded, Waiting
from app.observability.messaging import measure_attempt

logger = logging.getLogger("app.engine.worker")


def report(context: JobContext, ending: Ending) -> None:
    """Say how a job ended: which one, how long it took, and never its arguments."""
    job = context.job
    seconds = round(time.time() - context.start_timestamp, 3)
    measure_attempt(job.task_name, type(ending).__name__.lower(), seconds)
    fields = {"job_id": job.id, "action": job.task_name, "attempt": job.attempts + 1, "seconds": seconds}
    match ending:
        case Succeeded():
            logger.info("Succeeded", extra=fields)
        case Failed(problem=problem):
            logger.error("Failed: %s", problem.document.get("title"), extra=fields)
        case Retried(problem=problem, delay=delay):
            logger.warning("To be retried in %.1f s: %s", delay, problem.document.get("title"), extra=fields)
        case Snoozed(problem=problem, delay=delay):
            logger.warning("Snoozed for %.1f s: %s", delay, problem.document.get("title"), extra=fields)
        case Cancelled():
            logger.info("Cancelled", extra=fields)
        case Released(reason=reason):
            logger.warning("Put back: %s", reason, extra=fields)
        case Waiting():
            logger.info("Waits", extra=fields)
        case Lost():
            logger.warning("Lost to another attempt; its result was not kept", extra=fields)


def one_line(error: BaseException) -> str:
    """An error, or what caused it, without its traceback."""
    return traceback.format_exception_only(error.__cause__ or error)[-1].strip()
