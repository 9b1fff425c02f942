"""What the API sends. Members that a newer API adds are kept as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict
from typing_extensions import override


class _Sent(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    def as_json(self) -> dict[str, Any]:
        """What was sent, as JSON."""
        return self.model_dump(mode="json", exclude_unset=True)


class Fault(_Sent):
    """One thing that is wrong with what was sent."""

    pointer: str
    """JSON pointer (RFC 6901) into the request."""
    detail: str


class Problem(_Sent):
    """Why something was refused, or why a run failed (RFC 9457)."""

    type: str = "about:blank"
    title: str = ""
    status: int | None = None
    detail: str | None = None
    errors: list[Fault] = []

    @override
    def __str__(self) -> str:
        return ": ".join(part for part in (self.title, self.detail) if part) or "no reason given"

    @property
    def slug(self) -> str:
        """The last part of its type, such as `run-not-found`."""
        return self.type.rpartition("/")[2]


class Progress(_Sent):
    """How far a run says it is."""

    done: float
    total: float | None
    percent: float | None
    message: str | None


class Run(_Sent):
    """A run as it is at one moment."""

    id: str
    action: str
    state: str
    """scheduled, queued, running, retrying; succeeded, failed, cancelled."""
    params: dict[str, Any]
    result: Any
    error: Problem | None
    progress: Progress | None
    attempt: int
    max_attempts: int | None
    queue: str
    priority: int
    lock: str | None
    tags: list[str]
    created_at: AwareDatetime
    schedule_at: AwareDatetime | None
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    links: dict[str, str]
    traceback: str | None = None
    """Where its last attempt failed, if it was asked for."""

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.state in ("succeeded", "failed", "cancelled")


class Reason(_Sent):
    """One reason why a run is not running."""

    code: str
    """A word for programs, such as `lock_held`."""
    message: str
    """A sentence for people."""
    until: AwareDatetime | None
    """When it ends, or about then, where that is known."""


class Signal(_Sent):
    """What a run was told."""

    run_id: str
    name: str
    data: Any
    created_at: AwareDatetime


class Page(_Sent):
    """Runs, newest first."""

    items: list[Run]
    next: str | None
    """The `cursor` of the next page; `None` on the last one."""
    prev: str | None
    """The `cursor` of the page before; `None` on the first one."""


@dataclass(frozen=True)
class Event:
    """One line of a run's history.

    `type` is state, progress, log, step or end; the data of `end` is the run, that of the others has `at` (ISO 8601).
    """

    id: str
    type: str
    data: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The event as one JSON object."""
        return {"id": self.id, "type": self.type, "data": self.data}
