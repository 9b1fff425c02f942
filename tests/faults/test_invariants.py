"""The judge sees what it is there to see."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from tests.faults.claims import LOST, Absence, Claim, claims_of
from tests.faults.effects import Execution
from tests.faults.invariants import failures, locks


def told(at: float, state: str, attempt: int = 1, error: str | None = None) -> dict[str, Any]:
    data = {"state": state, "attempt": attempt} | ({"error": {"type": error}} if error else {})
    return {"type": "state", "at": datetime.fromtimestamp(at, UTC), "data": data}


def execution(begin: float, end: float | None, attempt: int = 1, pid: int = 7) -> Execution:
    return Execution("r", attempt, pid, "one", begin, end)


LOST_ONCE = [told(10, "running"), told(14, "retrying", error=LOST), told(15, "running", 2), told(20, "succeeded", 2)]


def other(begin: float, end: float) -> list[Claim]:
    return [Claim(1, begin, end, False, (execution(begin, end),))]


def test_a_lock_that_two_hold_is_seen_in_whichever_execution() -> None:
    first = claims_of(LOST_ONCE, [execution(11, 13), execution(15, 19, 2)])
    assert list(locks({"first": first, "second": other(12, 13)}))
    assert list(locks({"first": first, "second": other(16, 17)}))
    assert not list(locks({"first": first, "second": other(13, 15)}))


def test_a_zombies_tail_is_allowed() -> None:
    first = claims_of(LOST_ONCE, [execution(11, 18), execution(19, 19.5, 2)])
    assert not list(locks({"first": first, "second": other(14, 17)}))


def test_who_was_killed_holds_its_lock_until_its_run_is_given_back() -> None:
    first = claims_of(LOST_ONCE, [execution(11, None), execution(15, 19, 2)])
    assert list(locks({"first": first, "second": other(13, 13.5)}))


FAILED = {"r": {"state": "failed", "error": {"type": LOST}}}
LOST_TWICE = [*LOST_ONCE[:3], told(20, "failed", 2, LOST)]


def test_a_run_that_fails_for_lost_workers_has_lost_so_many() -> None:
    claims = {"r": claims_of(LOST_TWICE, [execution(11, None, pid=1), execution(15, None, 2, pid=2)])}
    there = [Absence(1, 12), Absence(2, 17)]
    assert not list(failures(FAILED, claims, there, crash_cap=2))
    assert list(failures(FAILED, claims, there, crash_cap=3))


def test_a_worker_that_was_there_was_not_lost() -> None:
    claims = {"r": claims_of(LOST_TWICE, [execution(11, None, pid=1), execution(15, None, 2, pid=2)])}
    assert list(failures(FAILED, claims, [Absence(1, 12)], crash_cap=2)), "the second was there"
    assert list(failures(FAILED, claims, [Absence(1, 12), Absence(2, 1, 9)], crash_cap=2)), "it was away before"


def test_what_is_not_given_back_is_held() -> None:
    (claim,) = claims_of([told(10, "running")], [execution(11, None)])
    assert claim.end == math.inf
