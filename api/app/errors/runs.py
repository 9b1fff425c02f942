"""What cannot be done with runs."""

from __future__ import annotations

from typing import Any

from app.errors.kinds import NotNow, Refused


class UnknownAction(Refused):
    """There is no action of that name. `GET /actions` lists those there are."""

    title = "Unknown action"
    status = 404


class RunNotFound(Refused):
    """There is no run with that id. Runs that ended longer ago than `RETENTION_DAYS` are deleted."""

    title = "Run not found"
    status = 404


class RunFinal(Refused):
    """The run has already ended: it can neither be cancelled nor be told anything. Read it with `GET /runs/{id}`."""

    title = "The run has ended"
    status = 409
    state: str


class RunNotFailed(Refused):
    """Only a run that failed or was cancelled can be retried."""

    title = "The run has not failed"
    status = 409
    state: str


class SignalSent(Refused):
    """The run was sent this signal with other data, and the first counts. Send the next one under a name of its own."""

    title = "The signal was sent before"
    status = 409


class AlreadyQueued(Refused):
    """A run with the same queueing lock is already waiting. Wait for it, or use another queueing lock."""

    title = "Already queued"
    status = 409
    run_id: str | None = None
    """The run that waits, where the caller may see it."""


class NotUnique(Refused):
    """A run with the same unique key is there, as its `unique.scope` says. Wait for it: `run_id` names it."""

    title = "Not unique"
    status = 409
    run_id: str
    state: str


class NoResult(Refused):
    """The run has ended without a result: it failed or was cancelled. `error` says why."""

    title = "The run has no result"
    status = 409
    state: str
    error: dict[str, Any] | None = None


class ResultExpired(Refused):
    """The result is kept no longer: runs are deleted `RETENTION_DAYS` after their end. Fetch results sooner."""

    title = "The result has expired"
    status = 410


class IdempotencyKeyReused(Refused):
    """This `Idempotency-Key` was sent with another request. Use a new key for a new request."""

    title = "The idempotency key was used before"
    status = 422


class IdempotencyInFlight(NotNow):
    """The first request with this `Idempotency-Key` is being stored at this moment. Send it again a little later."""

    title = "The first request is in flight"
    status = 409


class RunNotFinished(NotNow):
    """The run has no result yet. Wait for its end: `GET /runs/{id}` with `Prefer: wait=30`, or its events."""

    title = "The run has not ended"
    status = 409
    state: str
