"""A job in the words of the job orchestrator's document: one that sleeps, and echoes a message."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.routers.doors import vocabulary
from app.runs.schemas import NO_NUL, RunCreate, RunRead
from app.runs.state import RunState

ACTION = "sleep"
TAG = "sleep-job"
"""On every run that was submitted here: an action may be asked for at any door, and is told of in that one's words."""

DEFAULT_SECONDS = 3
LONGEST_SECONDS = 86_400

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]

_STATUS: dict[RunState, Status] = vocabulary("queued", "running", "succeeded", "failed", "cancelled")


class SleepJobCreate(BaseModel):
    """A job that sleeps."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{}, {"sleep_seconds": 2, "message": "hello world"}]},
    )

    sleep_seconds: Annotated[int, Field(strict=True, ge=0, le=LONGEST_SECONDS)] = DEFAULT_SECONDS
    message: Annotated[str, Field(max_length=10_000, pattern=NO_NUL)] | None = None

    def request(self) -> RunCreate:
        """The same in the words of runs."""
        params = {"seconds": self.sleep_seconds, "message": self.message}
        return RunCreate(action=ACTION, params=params, tags=[TAG])


class SleepJobRead(BaseModel):
    """A job that sleeps, and how it stands."""

    id: str = Field(examples=["run_20251222T101500Z_ab12cd34"])
    status: Status
    sleep_seconds: int | float
    message: str | None
    result: dict[str, Any] | None = Field(
        description="`{slept_seconds, message}` when it succeeded, `{error}` when it failed.",
        examples=[{"slept_seconds": 3, "message": "hello world"}],
    )
    created_at: AwareDatetime
    updated_at: AwareDatetime | None = Field(
        default=None, description="Its start or its end; not in a submission's answer."
    )


def is_sleep_job(run: RunRead) -> bool:
    """Whether the run was submitted here."""
    return run.action == ACTION and TAG in run.tags


def accepted(run: RunRead) -> SleepJobRead:
    """A run that has just been submitted."""
    return SleepJobRead(
        id=run.id,
        status=_STATUS[run.state],
        sleep_seconds=_whole(run.params.get("seconds", DEFAULT_SECONDS)),
        message=run.params.get("message"),
        result=_result(run),
        created_at=run.created_at,
    )


def read(run: RunRead) -> SleepJobRead:
    """A run, with the time of its last change."""
    updated_at = run.finished_at or run.started_at or run.created_at
    return accepted(run).model_copy(update={"updated_at": updated_at})


def _result(run: RunRead) -> dict[str, Any] | None:
    match run.state:
        case RunState.SUCCEEDED:
            slept = run.result or {}
            return {**slept, "slept_seconds": _whole(slept["slept_seconds"])}
        case RunState.FAILED:
            return {"error": run.error}
        case _:
            return None


def _whole(seconds: float) -> float:
    """As it was asked for: the ledger keeps seconds that may have a fraction."""
    return int(seconds) if float(seconds).is_integer() else seconds
