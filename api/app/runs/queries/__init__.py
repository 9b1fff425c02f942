"""Every statement about runs, one function each. Writes of a running attempt name the holder they expect."""

from app.runs.queries.attempt import Holder, append_event, get_steps, insert_step
from app.runs.queries.ended import delete_ended_runs, requeue_ended_job
from app.runs.queries.reading import (
    EventRow,
    RunRow,
    get_run,
    list_events,
    list_new_events,
    list_runs_by_id,
)
from app.runs.queries.submission import NewRun, StoredRun, count_waiting_runs, insert_runs, stop_keeping

__all__ = [
    "EventRow",
    "Holder",
    "NewRun",
    "RunRow",
    "StoredRun",
    "append_event",
    "count_waiting_runs",
    "delete_ended_runs",
    "get_run",
    "get_steps",
    "insert_runs",
    "insert_step",
    "list_events",
    "list_new_events",
    "list_runs_by_id",
    "requeue_ended_job",
    "stop_keeping",
]
