"""Runs on the wire."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from app.runs.queries import EventRow, RunRow, StoredRun
from app.runs.state import RunState

RUN_ID = re.compile(r"run_\d{8}T\d{6}Z_[0-9a-f]{8}")

Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.-]+$", min_length=1, max_length=40)]
"""Queues are notification channels too, which PostgreSQL limits to 63 bytes with Procrastinate's prefix."""
NO_NUL = r"^[^\x00]*$"
LockName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=NO_NUL)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=NO_NUL)]


def _in_utc(time: datetime) -> datetime:
    try:
        utc = time.astimezone(UTC)
    except OverflowError:
        raise ValueError("The time must be between the years 2000 and 2999.") from None
    if not 2000 <= utc.year <= 2999:
        raise ValueError("The time must be between the years 2000 and 2999.")
    return utc


ScheduleTime = Annotated[AwareDatetime, AfterValidator(_in_utc)]


RUN: dict[str, Any] = {
    "id": "run_20260105T093000Z_ab12cd34",
    "action": "echo",
    "state": "succeeded",
    "params": {"message": "hello"},
    "result": {"message": "hello"},
    "error": None,
    "progress": None,
    "attempt": 1,
    "max_attempts": 5,
    "queue": "default",
    "priority": 0,
    "lock": None,
    "tags": [],
    "schedule_at": None,
    "start_deadline": None,
    "created_at": "2026-01-05T09:30:00Z",
    "started_at": "2026-01-05T09:30:00.012Z",
    "finished_at": "2026-01-05T09:30:00.031Z",
    "worker": 1,
    "parent_id": None,
    "replay_of": None,
    "trace_id": None,
    "links": {
        name: f"/runs/run_20260105T093000Z_ab12cd34{rest}"
        for name, rest in {"self": "", "events": "/events", "cancel": "/cancel", "retry": "/retry"}.items()
    },
}
"""What OpenAPI shows of a run."""


class RunCreate(BaseModel):
    """A request to perform an action."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"action": "echo", "params": {"message": "hello"}}]},
    )

    action: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    params: dict[str, Any] = Field(default_factory=dict, description="The action's input; see `GET /actions`.")
    queue: Name | None = Field(default=None, description="The action's own queue if not given.")
    priority: Annotated[int, Field(strict=True, ge=-32768, le=32767)] | None = Field(
        default=None, description="Higher first."
    )
    lock: LockName | None = Field(default=None, description="Runs of one lock are performed one after the other.")
    queueing_lock: LockName | None = Field(default=None, description="At most one run of it waits at a time.")
    schedule_at: ScheduleTime | None = Field(default=None, description="Not before this time.")
    start_deadline: ScheduleTime | None = Field(
        default=None, description="A run that has not started by then fails, with the problem `/problems/too-late`."
    )
    tags: list[Tag] = Field(default_factory=list, max_length=20)
    webhook: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        default=None, description="The id of a webhook endpoint that is told of its end; see `POST /webhooks`."
    )


class RunBatch(BaseModel):
    """Requests that are accepted or refused one by one."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"runs": [{"action": "echo", "params": {"message": "hello"}}]}]},
    )

    runs: list[Any] = Field(min_length=1, max_length=1000, description="Each like the body of `POST /runs`.")


class BatchItem(BaseModel):
    """What became of one request: the id of its run, or a problem object."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": RUN["id"]}]})

    id: str | None = None
    error: dict[str, Any] | None = None


class BatchAccepted(BaseModel):
    """What became of each request, in the order sent."""

    items: list[BatchItem]


class Progress(BaseModel):
    """How far a run says it is."""

    done: float
    total: float | None
    percent: float | None
    message: str | None


class Links(BaseModel):
    """Where to go from here."""

    self: str
    events: str
    cancel: str
    retry: str


class RunRead(BaseModel):
    """A run: the durable record of one request to perform an action."""

    model_config = ConfigDict(json_schema_extra={"examples": [RUN]})

    id: str
    action: str
    state: RunState
    params: dict[str, Any]
    result: Any = Field(description="What the action returned; null until it succeeded.")
    error: dict[str, Any] | None = Field(description="A problem object about the last attempt that failed.")
    progress: Progress | None
    attempt: int = Field(description="The number of the current or last try; 0 before the first.")
    max_attempts: int | None
    queue: str
    priority: int
    lock: str | None
    tags: list[str]
    schedule_at: AwareDatetime | None
    start_deadline: AwareDatetime | None
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    worker: int | None = Field(description="The worker that performs it, or performed it last.")
    parent_id: str | None
    replay_of: str | None
    trace_id: str | None
    links: Links


class RunPage(BaseModel):
    """Runs, newest first."""

    items: list[RunRead]
    next: str | None = Field(description="The `cursor` of the next page; null on the last one.")


class EventRead(BaseModel):
    """One line of a run's history."""

    seq: int
    at: AwareDatetime
    type: str
    data: dict[str, Any]


def read_run(row: RunRow | StoredRun) -> RunRead:
    """A row of `queries`, as a run on the wire."""
    run = row if isinstance(row, dict) else row._mapping
    return RunRead(
        state=_state_now(run["state"], run["schedule_at"], run["read_at"]),
        progress=_progress(run["progress"]),
        worker=run["worker_id"],
        trace_id=_trace_id(run["trace_context"]),
        links=_links(run["id"]),
        **{name: run[name] for name in _SAME_NAME},
    )


def read_event(row: EventRow) -> EventRead:
    """A row of `run_events`, as an event on the wire."""
    event = row._mapping
    return EventRead(seq=event["seq"], at=event["at"], type=event["type"], data=event["data"])


_SAME_NAME = [
    "id", "action", "params", "result", "error", "attempt", "max_attempts", "queue", "priority", "lock", "tags",
    "schedule_at", "start_deadline", "created_at", "started_at", "finished_at", "parent_id", "replay_of",
]  # fmt: skip


def _state_now(state: str, schedule_at: Any, now: Any) -> RunState:
    # Nobody rewrites a scheduled run when its time has come: it is queued from then on.
    due = state == RunState.SCHEDULED and schedule_at <= now
    return RunState.QUEUED if due else RunState(state)


def _progress(stored: dict[str, Any] | None) -> Progress | None:
    if stored is None:
        return None
    total = stored["total"]
    percent = round(min(max(100 * stored["done"] / total, 0), 100), 1) if total else None
    return Progress(done=stored["done"], total=total, percent=percent, message=stored["message"])


def _trace_id(context: dict[str, Any] | None) -> str | None:
    parts = (context or {}).get("traceparent", "").split("-")
    return parts[1] if len(parts) == 4 else None


def _links(run_id: str) -> Links:
    run = f"/runs/{run_id}"
    return Links(self=run, events=f"{run}/events", cancel=f"{run}/cancel", retry=f"{run}/retry")
