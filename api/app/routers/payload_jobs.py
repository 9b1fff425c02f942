"""A job in the words of the async worker's document: `{"payload": {"task": …}}`, and only one of a kind waits."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Generator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.errors import Fault, InvalidInput, UnknownAction
from app.routers.doors import vocabulary
from app.runs.schemas import OnConflict, RunCreate, RunRead, Unique, UniqueScope
from app.runs.state import RunState
from app.runs.stored import Found
from app.runs.submission import Accepted

WITHOUT_TASK = "noop"
"""The action of a payload that names none. Its params are the payload."""

Status = Literal["queued", "processing", "completed", "failed", "cancelled"]

_STATUS: dict[RunState, Status] = vocabulary("queued", "processing", "completed", "failed", "cancelled")


class Payload(BaseModel):
    """What to do, and with what: an action's name, and beside it the action's params."""

    model_config = ConfigDict(extra="allow")

    task: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(
        default=WITHOUT_TASK, description="An action; see `GET /actions`. Without it the payload is kept, and no more."
    )


class PayloadJobCreate(BaseModel):
    """A job that names its task."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"payload": {"task": "hello_world", "data": "test message"}}]},
    )

    payload: Payload
    on_duplicate: OnConflict = Field(
        default=OnConflict.RETURN_EXISTING,
        description="While a job of the same payload waits: that one is the answer, or this one replaces it, or 409.",
    )

    def request(self) -> RunCreate:
        """The same in the words of runs."""
        task = self.payload.task
        whole, extra = self.payload.model_dump(exclude_unset=True), self.payload.model_extra or {}
        params = whole if task == WITHOUT_TASK else extra
        unique = Unique(key=_content(params), scope=UniqueScope.WAITING, on_conflict=self.on_duplicate)
        return RunCreate(action=task, params=params, unique=unique)


class PayloadJobAccepted(BaseModel):
    """The id to ask with."""

    job_id: str = Field(examples=["run_20251222T101500Z_ab12cd34"])
    status: Status
    duplicate: bool = Field(default=False, description="Only if it is: a job of the same payload waits, and is this.")
    replaces: str | None = Field(default=None, description="Only if it does: the job that was cancelled for this one.")


class PayloadJobRead(BaseModel):
    """How a job stands."""

    job_id: str = Field(examples=["run_20251222T101500Z_ab12cd34"])
    status: Status
    attempt_count: int = Field(description="0 before the first.")
    payload: dict[str, Any]
    error: dict[str, Any] | None = Field(default=None, description="Only if it failed: a problem object.")


@contextlib.contextmanager
def task_at_payload() -> Generator[None]:
    """A task that is no action is a fault of the payload.

    Raises:
        InvalidInput: instead of `UnknownAction`.
    """
    try:
        yield
    except UnknownAction as problem:
        detail = problem.detail or ""
        raise InvalidInput(errors=[Fault(pointer="/payload/task", detail=detail, type="unknown_action")]) from None


def told(accepted: Accepted) -> PayloadJobAccepted:
    """What has become of a submission."""
    run = accepted.run
    more: dict[str, Any] = {"duplicate": True} if accepted.found is Found.EXISTING else {}
    if accepted.replaced is not None:
        more["replaces"] = accepted.replaced
    return PayloadJobAccepted(job_id=run.id, status=_STATUS[run.state], **more)


def read(run: RunRead) -> PayloadJobRead:
    """Any run, in these words."""
    # A run of another door may have a param that is called `task`.
    payload = run.params if run.action == WITHOUT_TASK else {**run.params, "task": run.action}
    told: dict[str, Any] = {"error": run.error} if run.state is RunState.FAILED else {}
    return PayloadJobRead(job_id=run.id, status=_STATUS[run.state], attempt_count=run.attempt, payload=payload, **told)


def _content(params: dict[str, Any]) -> str:
    content = json.dumps(params, sort_keys=True, separators=(",", ":"))
    return f"content:{hashlib.sha256(content.encode()).hexdigest()}"
