"""Why a run is not running. Pure: from facts that one statement has gathered to reasons, in order of cause."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, BaseModel, Field

from app.runs.schemas import NO_TIME
from app.runs.state import RunState

AHEAD_CAP = 1_000
"""So many of those that wait before a run are counted, and no more."""


class Cause(StrEnum):
    """A machine's word for a reason. Never changes meaning."""

    ENDED = "ended"
    RUNNING = "running"
    WAITS_FOR_CHILDREN = "waits_for_children"
    WAITS_FOR_SIGNAL = "waits_for_signal"
    SCHEDULED = "scheduled"
    BACKING_OFF = "backing_off"
    QUEUE_PAUSED = "queue_paused"
    LOCK_HELD = "lock_held"
    CONCURRENCY_LIMIT = "concurrency_limit"
    RATE_LIMIT = "rate_limit"
    NO_WORKER = "no_worker"
    ACTION_UNKNOWN = "action_unknown"
    BEHIND = "behind"
    NEXT = "next"


class Reason(BaseModel):
    """One reason why a run is not running."""

    code: Cause
    message: str = Field(description="A sentence for people.")
    until: AwareDatetime | None = Field(default=None, description="When it ends; about then, for what is estimated.")
    run_id: str | None = Field(default=None, description="The run that it waits for, if it is one you may see.")
    key: str | None = Field(default=None, description="The lock, the key of the limit, or the signal.")
    ahead: int | None = Field(default=None, description=f"How many wait before it; {AHEAD_CAP} means: or more.")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a run, of its job and of what may be in its way, at one moment (`now`)."""

    now: datetime
    state: str
    action: str
    queue: str
    attempt: int
    error: dict[str, Any] | None
    worker_id: int | None
    started_at: datetime | None
    finished_at: datetime | None
    due_at: datetime | None
    """Not before then; `None`: now."""
    signal: str | None
    """What it waits to be told."""
    awaited: int
    """How many children it waits for; meaningful, as the signal is, while it is not due."""
    children: int
    """How many it has."""
    attempts: int
    """How many have been made."""
    snoozes: int
    """How often it was asked to wait, without using one."""
    lock: str | None
    holder_id: str | None
    """The run that holds the lock, or that waits for it before all others."""
    holder_since: datetime | None
    is_held: bool
    """Whether some job holds the lock."""
    is_paused: bool
    paused_by: str | None
    pause_reason: str | None
    resume_at: datetime | None
    limit_key: str | None
    concurrency: int | None
    running_of_key: int
    oldest_of_key: datetime | None
    """Since when the one that has run longest runs."""
    token_at: datetime | None
    """When the bucket has a token."""
    listening: int
    """Live workers that listen to the queue."""
    knowing: int
    """Those of them that know the action."""
    slots: int
    """How many runs those perform at a time."""
    ahead: int
    mean_seconds: float | None
    """How long runs of this action have taken of late."""


def explain(facts: Facts) -> list[Reason]:
    """Every reason why a run is not running, the first cause first; that it runs, or has ended, is one too."""
    match RunState(facts.state):
        case RunState.SUCCEEDED | RunState.FAILED | RunState.CANCELLED as state:
            return [Reason(code=Cause.ENDED, message=f"It has {_ended(state)} at {_time(facts.finished_at)}.")]
        case RunState.RUNNING:
            message = f"It is running: attempt {facts.attempt}, on worker {facts.worker_id}."
            return [Reason(code=Cause.RUNNING, message=message)]
        case _:
            found = (look(facts) for look in (_time_to_come, _pause, _lock, _concurrency, _rate, _workers))
            reasons = [reason for reason in found if reason is not None]
            return reasons if _is_to_come(facts) else [*reasons, _line(facts, is_free=not reasons)]


def _time_to_come(facts: Facts) -> Reason | None:
    if not _is_to_come(facts):
        return None
    if facts.signal is not None or facts.awaited:
        return _wait(facts)
    if facts.attempts == 0 and not (facts.snoozes and facts.error):
        message = f"It is scheduled for {_time(facts.due_at)}."
        return Reason(code=Cause.SCHEDULED, message=message, until=facts.due_at)
    error = (facts.error or {}).get("title", "an error")
    if facts.snoozes:
        times = "once" if facts.snoozes == 1 else f"{facts.snoozes} times"
        message = (
            f"It was asked to wait, {times}, which used no attempt; the last error is: {error}. "
            f"Attempt {facts.attempts + 1} is not before {_time(facts.due_at)}."
        )
    else:
        message = f"Attempt {facts.attempts} ended with: {error}. The next one is not before {_time(facts.due_at)}."
    return Reason(code=Cause.BACKING_OFF, message=message, until=facts.due_at)


def _wait(facts: Facts) -> Reason:
    if facts.signal is None:
        number = "its child" if facts.children == 1 else f"{facts.awaited} of its {facts.children} children"
        message = f"It waits for {number} to end: GET /runs?parent_id= lists them."
        return Reason(code=Cause.WAITS_FOR_CHILDREN, message=message)
    until = None if facts.due_at == NO_TIME else facts.due_at
    message = f"It waits for the signal {facts.signal!r}" + (f" until {_time(until)}." if until else ".")
    return Reason(code=Cause.WAITS_FOR_SIGNAL, message=message, until=until, key=facts.signal)


def _pause(facts: Facts) -> Reason | None:
    if not facts.is_paused:
        return None
    until = f" until {_time(facts.resume_at)}" if facts.resume_at else ""
    why = f": {facts.pause_reason}" if facts.pause_reason else ""
    message = f"The queue {facts.queue} is paused by {facts.paused_by}{until}{why}."
    return Reason(code=Cause.QUEUE_PAUSED, message=message, until=facts.resume_at)


def _lock(facts: Facts) -> Reason | None:
    if facts.lock is None or not (facts.is_held or facts.ahead):
        return None
    who = facts.holder_id or "another run"
    if facts.is_held:
        message = f"The lock {facts.lock!r} is held by {who} since {_time(facts.holder_since)}."
    else:
        message = f"The lock {facts.lock!r} goes to {who} first."
    return Reason(code=Cause.LOCK_HELD, message=message, run_id=facts.holder_id, key=facts.lock)


def _concurrency(facts: Facts) -> Reason | None:
    if facts.concurrency is None or facts.running_of_key < facts.concurrency:
        return None
    until = None
    if facts.oldest_of_key is not None and facts.mean_seconds is not None:
        until = max(facts.oldest_of_key + timedelta(seconds=facts.mean_seconds), facts.now)
    message = f"{facts.running_of_key} of {facts.limit_key!r} are running, and no more may at once{_about(until)}."
    return Reason(code=Cause.CONCURRENCY_LIMIT, message=message, until=until, key=facts.limit_key)


def _rate(facts: Facts) -> Reason | None:
    if facts.token_at is None or facts.token_at <= facts.now:
        return None
    message = f"As many of {facts.limit_key!r} have started as may for now{_about(facts.token_at)}."
    return Reason(code=Cause.RATE_LIMIT, message=message, until=facts.token_at, key=facts.limit_key)


def _workers(facts: Facts) -> Reason | None:
    if facts.listening == 0:
        message = f"No live worker listens to the queue {facts.queue}. Start one, or look at WORKER_QUEUES."
        return Reason(code=Cause.NO_WORKER, message=message)
    if facts.knowing == 0:
        message = f"No live worker of the queue {facts.queue} knows the action {facts.action}. Deploy one that does."
        return Reason(code=Cause.ACTION_UNKNOWN, message=message)
    return None


def _line(facts: Facts, *, is_free: bool) -> Reason:
    if facts.ahead == 0:
        message = "Nothing waits before it" + (
            ": a worker takes it as soon as one has a free place." if is_free else "."
        )
        return Reason(code=Cause.NEXT, message=message, ahead=0)
    until = None
    if is_free and facts.mean_seconds is not None and facts.slots:
        until = facts.now + timedelta(seconds=facts.ahead * facts.mean_seconds / facts.slots)
    number = f"{AHEAD_CAP} or more" if facts.ahead >= AHEAD_CAP else str(facts.ahead)
    message = f"{number} wait before it" + (f"; it may start about {_time(until)}." if until else ".")
    return Reason(code=Cause.BEHIND, message=message, until=until, ahead=facts.ahead)


def _is_to_come(facts: Facts) -> bool:
    return facts.due_at is not None and facts.due_at > facts.now


def _ended(state: RunState) -> str:
    return "been cancelled" if state is RunState.CANCELLED else str(state)


def _about(until: datetime | None) -> str:
    return f"; the next place is free about {_time(until)}" if until else ""


def _time(time: datetime | None) -> str:
    return "a time that is not known" if time is None else time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
