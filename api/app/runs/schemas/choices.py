"""Which runs are listed, and what is done to many of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.runs.schemas.words import NO_NUL, RUN_ID, ActionName, QueueName, ScheduleTime, TagName
from app.runs.state import RunState


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
    count: Literal["estimated"] | None = Field(
        default=None, description="`estimated`: say in `total_estimated` about how many there are."
    )
    cursor: str | None = Field(default=None, max_length=64, description="`next` or `prev` of another page.")
