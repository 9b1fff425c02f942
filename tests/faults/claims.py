"""Who held which run, and when: what the ledger tells of claims, beside what executions did."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from tests.faults.effects import Execution

LOST = "/problems/worker-lost"


@dataclass(frozen=True)
class Claim:
    """From when to when an attempt held a run, in seconds since 1970, and what was executed under it."""

    attempt: int
    begin: float
    end: float
    is_lost: bool
    """Whether it ended because its worker was taken for dead."""
    executions: tuple[Execution, ...]

    def held(self, execution: Execution) -> tuple[float, float]:
        """The part of an execution in which it held the run; a zombie's tail is not in it.

        One that was killed holds the run, and its lock, until somebody gives them back.
        """
        return execution.begin, self.end if execution.end is None else min(execution.end, self.end)


@dataclass(frozen=True)
class Absence:
    """A time in which a worker process did nothing, because it was stopped or had ended."""

    pid: int
    begin: float
    end: float = math.inf

    def explains(self, claim: Claim) -> bool:
        """Whether a claim may have been lost by it; whose a claim was under which nothing was executed is not known."""
        pids = {execution.pid for execution in claim.executions} or {self.pid}
        return self.pid in pids and self.begin < claim.end and self.end > claim.begin


def told_states(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events that tell a state, without those that say that a running run was asked to stop."""
    return [event for event in events if event["type"] == "state" and "cancel_requested" not in event["data"]]


def claims_of(events: Iterable[dict[str, Any]], executions: Sequence[Execution]) -> list[Claim]:
    """The claims of one run, in their order. An execution belongs to the last one of its attempt before it began."""
    told = told_states(events)
    claimed = [
        (event, following) for event, following in zip_longest(told, told[1:]) if event["data"]["state"] == "running"
    ]
    performed: list[list[Execution]] = [[] for _ in claimed]
    for execution in executions:
        for (event, _), of_claim in zip(reversed(claimed), reversed(performed), strict=True):
            if event["data"]["attempt"] == execution.attempt and event["at"].timestamp() <= execution.begin:
                of_claim.append(execution)
                break
    return [
        Claim(
            attempt=event["data"]["attempt"],
            begin=event["at"].timestamp(),
            end=following["at"].timestamp() if following else math.inf,
            is_lost=bool(following) and following["data"].get("error", {}).get("type") == LOST,
            executions=tuple(of_claim),
        )
        for (event, following), of_claim in zip(claimed, performed, strict=True)
    ]
