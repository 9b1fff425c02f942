"""Control on the wire."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from app.runs.explain import Reason
from app.runs.schemas import NO_NUL, ScheduleTime
from app.runs.state import RunState


class QueuePauseCreate(BaseModel):
    """A request to pause a queue."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"reason": "The vendor is down", "resume_at": "2999-01-01T00:00:00Z"}]},
    )

    reason: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=NO_NUL)] | None = None
    resume_at: ScheduleTime | None = Field(
        default=None, description="When it resumes by itself; not given: when somebody resumes it."
    )


class QueuePauseRead(BaseModel):
    """Who has paused a queue, and until when."""

    by: str
    reason: str | None
    at: AwareDatetime
    resume_at: AwareDatetime | None


class QueueRead(BaseModel):
    """A queue: what waits in it, and who works on it."""

    name: str
    scheduled: int = Field(description="Runs whose time has not come.")
    queued: int
    running: int
    retrying: int
    oldest_seconds: float | None = Field(description="How long ago the oldest run that waits was accepted.")
    workers: int = Field(description="Live workers that listen to it.")
    slots: int = Field(description="How many runs these perform at a time.")
    paused: QueuePauseRead | None


class QueueList(BaseModel):
    """Every queue that something waits or runs in, that is paused, or that a live worker names."""

    items: list[QueueRead]


class WorkerRead(BaseModel):
    """A worker, as its heartbeat says. One that was started by other code says only that it lives."""

    id: int
    is_stale: bool = Field(description="Not heard of for so long that the others take its runs.")
    heartbeat_at: AwareDatetime
    heartbeat_seconds: float = Field(description="How long ago that was.")
    host: str | None
    pid: int | None
    version: str | None
    queues: list[str] | None = Field(description="Null: all.")
    actions: list[str] | None = Field(description="The tasks that it knows.")
    concurrency: int | None
    started_at: AwareDatetime | None
    running: int = Field(description="How many jobs it holds.")
    runs: list[str] = Field(description="The runs among them, 200 at most.")


class WorkerList(BaseModel):
    """Every worker that the database knows."""

    items: list[WorkerRead]


class Why(BaseModel):
    """Why a run is not running."""

    id: str
    state: RunState
    reasons: list[Reason] = Field(description="In order of cause: the first is what must change first.")
