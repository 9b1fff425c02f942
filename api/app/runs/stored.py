"""What became of a submission: a new run, or one that was there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from app.errors import IdempotencyInFlight, IdempotencyKeyReused
from app.runs.queries import NewRun, RunRow, StoredRun

IN_FLIGHT = "The first request with this Idempotency-Key is being stored."


class Found(Enum):
    """Where the run comes from."""

    NEW = auto()
    """It was stored now."""
    REPLAYED = auto()
    """It was stored when its idempotency key was sent first."""
    EXISTING = auto()
    """It has the unique key that was asked for, and was there."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A run as it is in the database."""

    run: StoredRun
    found: Found = Found.NEW
    replaced: str | None = None
    """The run whose place it took."""


def replayed(run: NewRun, original: RunRow | None) -> Stored:
    """The run that was stored when this one's idempotency key was sent first.

    Raises:
        IdempotencyKeyReused: what was sent then was something else.
        IdempotencyInFlight: it is being stored at this moment.
    """
    if original is None:
        raise IdempotencyInFlight(detail=IN_FLIGHT)
    if original.sent != run["fingerprint"]:
        raise IdempotencyKeyReused(detail="This Idempotency-Key was sent with another request.")
    return Stored(dict(original._mapping), Found.REPLAYED)
