"""Every statement of control, one function each, a file a noun."""

from app.control.queries.dead_letters import discard_failed_runs, list_dead_jobs, list_dead_letters, retry_failed_jobs
from app.control.queries.facts import get_facts
from app.control.queries.queues import list_queues, pause_queue, resume_queue
from app.control.queries.schedules import (
    delete_schedule,
    insert_schedule,
    list_schedules,
    pause_schedule,
    resume_schedule,
)
from app.control.queries.totals import count_jobs, get_totals
from app.control.queries.workers import list_workers

__all__ = [
    "count_jobs",
    "delete_schedule",
    "discard_failed_runs",
    "get_facts",
    "get_totals",
    "insert_schedule",
    "list_dead_jobs",
    "list_dead_letters",
    "list_queues",
    "list_schedules",
    "list_workers",
    "pause_queue",
    "pause_schedule",
    "resume_queue",
    "resume_schedule",
    "retry_failed_jobs",
]
