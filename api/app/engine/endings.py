"""How the performance of a job can end. The worker decides, the finisher writes it down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """What went wrong: a problem object (RFC 9457) for everybody, and the traceback for those who may see it."""

    document: dict[str, Any]
    traceback: str


@dataclass(frozen=True)
class Succeeded:
    """It returned; `result` is JSON."""

    result: Any


@dataclass(frozen=True)
class Failed:
    """It raised, and is not to be tried again."""

    problem: Problem


@dataclass(frozen=True)
class Retried:
    """It raised, and is to be tried again in `delay` seconds, by the database's clock."""

    problem: Problem
    delay: float
    priority: int | None = None
    queue: str | None = None
    lock: str | None = None


@dataclass(frozen=True)
class Snoozed:
    """It was asked for patience: again in `delay` seconds, by the database's clock, the attempt given back."""

    problem: Problem
    delay: float


@dataclass(frozen=True)
class Cancelled:
    """Somebody asked for it to stop."""


@dataclass(frozen=True)
class Released:
    """This worker will not do it, and that is not the job's fault: back to the queue, the attempt given back."""

    delay: float = 0
    reason: str = field(default="the worker was told to stop")


@dataclass(frozen=True)
class Waiting:
    """It waits for something that the database knows: back until that has come, the attempt given back."""


@dataclass(frozen=True)
class Lost:
    """Another attempt holds it: there is nothing to write."""


Ending = Succeeded | Failed | Retried | Snoozed | Cancelled | Released | Waiting | Lost


UNTOLD = Failed(
    Problem(
        {
            "type": "/problems/untellable",
            "title": "It ended in a way that cannot be told",
            "detail": "Its result or its error cannot be written as JSON, or looking at it raised: see the log.",
        },
        traceback="",
    )
)

TOO_LATE = Failed(
    Problem(
        {
            "type": "/problems/too-late",
            "title": "It was too late to start",
            "detail": "No worker could start this run before its start_deadline.",
        },
        traceback="",
    )
)
