"""Control on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from app.engine.schedule import check_cron, check_zone
from app.runs.explain import Reason
from app.runs.schemas import NO_NUL, Name, ScheduleTime
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
    oldest_seconds: float | None = Field(description="For how long the first run that could start has waited.")
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


def _cron(text: str) -> str:
    check_cron(text)
    return text


def _zone(name: str) -> str:
    check_zone(name)
    return name


class ScheduleCreate(BaseModel):
    """A request to perform an action by the clock."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "morning-greeting",
                    "action": "echo",
                    "params": {"message": "Good morning"},
                    "cron": "30 6 * * 1-5",
                    "zone": "Europe/Berlin",
                }
            ]
        },
    )

    name: Name = Field(description="No other schedule has it, and no action.")
    action: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    params: dict[str, Any] = Field(default_factory=dict, description="The action's input; see `GET /actions`.")
    cron: Annotated[str, StringConstraints(max_length=100, pattern=NO_NUL), AfterValidator(_cron)] = Field(
        description="Five fields, or six, the last being seconds."
    )
    zone: Annotated[str, StringConstraints(max_length=64, pattern=NO_NUL), AfterValidator(_zone)] = Field(
        default="UTC", description="By whose clocks: an IANA name."
    )
    missed: Literal["skip", "one"] | Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        default="one",
        description="What happens to ticks that came while no worker was there: no run, one, or up to so many.",
    )


class ScheduledRun(BaseModel):
    """A run of a schedule."""

    id: str
    state: RunState
    created_at: AwareDatetime


class SchedulePauseRead(BaseModel):
    """Who has paused a schedule."""

    by: str
    at: AwareDatetime


class ScheduleRead(BaseModel):
    """A schedule: when an action is performed by the clock."""

    name: str
    action: str
    params: dict[str, Any]
    cron: str
    description: str = Field(description="What the cron says, in words.")
    zone: str
    missed: str | int
    is_declared: bool = Field(description="In the code, so that it cannot be deleted here.")
    created_by: str | None
    next: list[AwareDatetime] = Field(description="The next five ticks; none while it is paused.")
    last_tick: AwareDatetime | None = Field(description="The last one that a worker has seen to.")
    last_runs: list[ScheduledRun] = Field(description="The newest first.")
    paused: SchedulePauseRead | None


class ScheduleList(BaseModel):
    """Every schedule."""

    items: list[ScheduleRead]


class DeadLetter(BaseModel):
    """Failed runs that are alike: the same action, the same problem, the same words but for numbers and names."""

    fingerprint: str = Field(examples=["d41d8cd98f00b204e9800998ecf8427e"])
    action: str
    count: int
    first_seen: AwareDatetime = Field(description="When the first of them ended.")
    last_seen: AwareDatetime
    run_id: str = Field(description="The newest of them.")
    error: dict[str, Any] | None = Field(description="Its problem object.")


class DeadLetterList(BaseModel):
    """Failures by likeness, those seen last first."""

    items: list[DeadLetter]
    next: str | None = Field(description="The `cursor` of the next page; null on the last one.")


class DeadLetterOutcome(BaseModel):
    """What became of failed runs that are alike."""

    done: int = Field(description="How many were retried, or discarded.")
    skipped: int = Field(
        description="How many could not be: their job is gone, or another waits under their queueing lock."
    )
    more: bool = Field(description="There are more than one request sees to: ask again.")
