"""Requests to perform actions."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator

from app.runs.schemas.words import LONGEST_DELAY_SECONDS, LockName, Name, ScheduleTime, Tag


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
