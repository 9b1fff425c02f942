"""Runs on the wire."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

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


NO_TIME = datetime(2999, 12, 31, tzinfo=UTC)
"""When the job of a run that waits for its children, or for a signal, would begin: it waits for no time."""
LONGEST_DELAY_SECONDS = 10 * 366 * 86_400
ScheduleTime = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class UniqueScope(StrEnum):
    """Among which runs one is unique."""

    WAITING = "waiting"
    """Those that wait: scheduled, queued, retrying."""
    UNENDED = "unended"
    """Those that wait or run."""


class OnConflict(StrEnum):
    """What to do when the run is not unique."""

    RETURN_EXISTING = "return_existing"
    """Answer 200 with the run that is there."""
    REPLACE = "replace"
    """Cancel the run that is there if it waits, and take its place; one that runs is not replaced: 409."""
    REJECT = "reject"
    """Answer 409 with its id."""


class Unique(BaseModel):
    """At most one run of this key, of the same action and owner. What counts is the newest run of the key."""

    model_config = ConfigDict(extra="forbid")

    key: LockName
    scope: UniqueScope = Field(default=UniqueScope.UNENDED, description="Among runs that wait, or wait or run.")
    on_conflict: OnConflict = OnConflict.RETURN_EXISTING


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
    delay: Annotated[float, Field(strict=True, ge=0, le=LONGEST_DELAY_SECONDS, allow_inf_nan=False)] | None = Field(
        default=None, description="Not before so many seconds have passed, by the database's clock."
    )
    start_deadline: ScheduleTime | None = Field(
        default=None, description="A run that has not started by then fails, with the problem `/problems/too-late`."
    )
    max_attempts: Annotated[int, Field(strict=True, ge=1, le=100)] | None = Field(
        default=None, description="How often it is tried in all; the action's own number if not given."
    )
    tags: list[Tag] = Field(default_factory=list, max_length=20)
    webhook: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        default=None, description="The id of a webhook endpoint that is told of its end; see `POST /webhooks`."
    )
    unique: Unique | None = Field(default=None, description="At most one such run at a time.")

    @field_validator("delay")
    @classmethod
    def _one_time(cls, delay: float | None, sent: ValidationInfo) -> float | None:
        if delay is not None and sent.data.get("schedule_at") is not None:
            raise ValueError("Send schedule_at or delay, not both.")
        return delay


class RunBatch(BaseModel):
    """Requests that are accepted or refused one by one."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"runs": [{"action": "echo", "params": {"message": "hello"}}]}]},
    )

    runs: list[Any] = Field(min_length=1, max_length=1000, description="Each like the body of `POST /runs`.")


class RunReplay(BaseModel):
    """What is to be different when a run is submitted again."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{}]})

    params: dict[str, Any] | None = Field(default=None, description="The whole input; the old run's if not given.")
    queue: Name | None = None
    priority: Annotated[int, Field(strict=True, ge=-32768, le=32767)] | None = None


ActionName = Annotated[str, StringConstraints(max_length=64, pattern=NO_NUL)]
QueueName = Annotated[str, StringConstraints(max_length=40, pattern=NO_NUL)]
TagName = Annotated[str, StringConstraints(max_length=64, pattern=NO_NUL)]
"""As somebody asks for them: what there is was stored by rules of its own."""


class RunFilter(BaseModel):
    """Which runs."""

    model_config = ConfigDict(extra="forbid")

    state: RunState | None = None
    action: ActionName | None = None
    queue: QueueName | None = None
    tag: TagName | None = None
    parent_id: Annotated[str, StringConstraints(pattern=f"^{RUN_ID.pattern}$", max_length=64)] | None = Field(
        default=None, description="Those that this run has spawned.", examples=["run_20260105T093000Z_ab12cd34"]
    )
    since: ScheduleTime | None = Field(default=None, description="Accepted at this time or later.")
    until: ScheduleTime | None = Field(default=None, description="Accepted before this time.")
    q: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=NO_NUL)] | None = Field(
        default=None, description="Text in the params, in any case; params larger than 8 kB are not searched."
    )


class BulkOp(StrEnum):
    """What to do to many runs. Stored in params, so a name never changes meaning."""

    CANCEL = "cancel"
    RETRY = "retry"
    REPLAY = "replay"


class BulkRuns(BaseModel):
    """What to do, and to which runs: those of some ids, or those that fit a filter."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"op": "retry", "filter": {"state": "failed", "action": "echo"}}]},
    )

    op: BulkOp
    ids: list[Annotated[str, StringConstraints(pattern=RUN_ID.pattern, max_length=64)]] | None = Field(
        default=None, min_length=1, max_length=1000
    )
    filter: RunFilter | None = Field(default=None, description="Like the parameters of `GET /runs`; `{}`: all.")

    @model_validator(mode="after")
    def _which(self) -> Self:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("Send ids or filter, one of them.")
        return self


class BulkRequest(BulkRuns):
    """What to do, and to which runs; or only how many they are."""

    dry_run: bool = Field(default=False, description="Only count them.")


class Matched(BaseModel):
    """How many runs fit at this moment."""

    matched: int


class BulkDone(Matched):
    """How many fitted when it began, to how many it was done, and to how many it could not be done."""

    done: int
    refused: int


class RunQuery(RunFilter):
    """Which runs, and how many of them."""

    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=64, description="`next` of the page before.")


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
    error: dict[str, Any] | None = Field(description="A problem object about the last attempt that failed.")
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
    searched_until: AwareDatetime | None = Field(
        default=None, description="How far back this page has looked, if that was too far to go on: `next` goes on."
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
