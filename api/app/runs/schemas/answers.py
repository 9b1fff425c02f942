"""Runs and their events as they are told, and how they are read from rows."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.runs.queries import EventRow, RunRow, StoredRun
from app.runs.schemas.words import NO_TIME
from app.runs.state import RunState

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
    "webhook": None,
    "schedule_at": None,
    "start_deadline": None,
    "created_at": "2026-01-05T09:30:00Z",
    "started_at": "2026-01-05T09:30:00.012Z",
    "finished_at": "2026-01-05T09:30:00.031Z",
    "last_seq": 3,
    "worker": 1,
    "parent_id": None,
    "replay_of": None,
    "trace_id": None,
    "links": {
        name: f"/runs/run_20260105T093000Z_ab12cd34{rest}"
        for name, rest in {
            "self": "",
            "events": "/events",
            "result": "/result",
            "cancel": "/cancel",
            "retry": "/retry",
            "replay": "/replay",
            "why": "/why",
        }.items()
    }
    | {"children": "/runs?parent_id=run_20260105T093000Z_ab12cd34"},
}
"""What OpenAPI shows of a run."""


class BatchItem(BaseModel):
    """What became of one request: the id of its run, or a problem object."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": RUN["id"]}]})

    id: str | None = None
    replaced: str | None = Field(default=None, description="The run whose place it took.")
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
    result: str
    cancel: str
    retry: str
    replay: str
    why: str
    children: str


class RunRead(BaseModel):
    """A run: the durable record of one request to perform an action."""

    model_config = ConfigDict(json_schema_extra={"examples": [RUN]})

    id: str
    action: str
    state: RunState
    params: dict[str, Any]
    result: Any = Field(description="What the action returned; null until it succeeded.")
    error: dict[str, Any] | None = Field(
        description="A problem object about the last attempt that failed, or was asked to wait."
    )
    progress: Progress | None
    attempt: int = Field(description="The number of the current or last try; 0 before the first.")
    max_attempts: int | None
    queue: str
    priority: int
    lock: str | None
    tags: list[str]
    webhook: str | None = Field(description="The endpoint that is told of its end, if it named one.")
    schedule_at: AwareDatetime | None
    start_deadline: AwareDatetime | None
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    worker: int | None = Field(description="The worker that performs it, or performed it last.")
    parent_id: str | None
    replay_of: str | None
    trace_id: str | None
    last_seq: int = Field(description="The id of its newest event.")
    links: Links


class RunPage(BaseModel):
    """Runs, newest first."""

    items: list[RunRead]
    next: str | None = Field(description="The `cursor` of the next page; null on the last one.")
    prev: str | None = Field(description="The `cursor` of the page before; null on the first one.")
    searched_until: AwareDatetime | None = Field(
        default=None,
        description="How far this page has looked, if that was too far: `next` goes on, or on the way back `prev`.",
    )
    total_estimated: int | None = Field(
        default=None,
        description="Only with `count=estimated`: about how many runs fit, on all pages. Exact where fewer than 10,000 "
        "had to be looked at.",
    )


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
        progress=read_progress(run["progress"]),
        worker=run["worker_id"],
        trace_id=_trace_id(run["trace_context"]),
        schedule_at=None if run["schedule_at"] == NO_TIME else run["schedule_at"],
        links=_links(run["id"]),
        **{name: run[name] for name in _SAME_NAME},
    )


def read_event(row: EventRow | dict[str, Any]) -> EventRead:
    """A row of `run_events`, as an event on the wire."""
    event = row if isinstance(row, dict) else row._mapping
    return EventRead(seq=event["seq"], at=event["at"], type=event["type"], data=event["data"])


_SAME_NAME = [
    "id", "action", "params", "result", "error", "attempt", "max_attempts", "queue", "priority", "lock", "tags",
    "webhook", "start_deadline", "created_at", "started_at", "finished_at", "parent_id", "replay_of",
    "last_seq",
]  # fmt: skip


def _state_now(state: str, schedule_at: Any, now: Any) -> RunState:
    # Nobody rewrites a scheduled run when its time has come: it is queued from then on.
    due = state == RunState.SCHEDULED and schedule_at <= now
    return RunState.QUEUED if due else RunState(state)


def read_progress(stored: dict[str, Any] | None) -> Progress | None:
    """What a run or its event has stored of its progress, on the wire."""
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
    return Links(
        self=run,
        events=f"{run}/events",
        result=f"{run}/result",
        cancel=f"{run}/cancel",
        retry=f"{run}/retry",
        replay=f"{run}/replay",
        why=f"{run}/why",
        children=f"/runs?parent_id={run_id}",
    )
