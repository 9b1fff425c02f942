"""What must hold whatever happened. The verdict of every fault test, and the only one of the chaos run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any

from tests.faults.claims import LOST, Absence, Claim, claims_of, told_states
from tests.faults.effects import Effects, Execution
from tests.support.workshop import Workshop

FINAL = ("succeeded", "failed", "cancelled")
TROUBLES = ("retrying", "failed", "cancelled")

# What a job's status allows its run to say.
AGREES = {
    "todo": ("scheduled", "queued", "retrying"),
    "doing": ("running",),
    "succeeded": ("succeeded",),
    "failed": ("failed", "cancelled"),
    "cancelled": ("cancelled",),
    "aborted": ("cancelled",),
}


async def violations(
    workshop: Workshop,
    effects: Effects,
    accepted: set[str],
    *,
    waiting: Collection[str] = (),
    absences: Collection[Absence] = (),
    crash_cap: int = 1,
) -> list[str]:
    """Every invariant that does not hold, each said in one line; empty when all is well.

    Args:
        accepted: the runs whose submission was answered.
        waiting: runs that the test wants to find waiting.
        absences: when which worker was not there.
        crash_cap: how many lost workers make a run fail.
    """
    runs = {row["id"]: row for row in await workshop.fetch("SELECT * FROM action_runs")}
    jobs = {row["id"]: row for row in await workshop.fetch("SELECT * FROM procrastinate_jobs")}
    events: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in await workshop.fetch("SELECT run_id, seq, at, type, data FROM run_events ORDER BY run_id, seq"):
        events[row["run_id"]].append(row)
    executions: dict[str, list[Execution]] = defaultdict(list)
    for execution in effects.executions():
        executions[execution.run].append(execution)
    claims = {run_id: claims_of(events[run_id], executions[run_id]) for run_id in runs}
    return [
        *_lost(runs, accepted, waiting),
        *(f"{run_id}: performed, and nobody asked for it" for run_id in executions.keys() - runs.keys()),
        *_histories(runs, events),
        *_executions(runs, events, executions),
        *_jobs(runs, jobs),
        *troubles(runs),
        *locks(claims),
        *failures(runs, claims, absences, crash_cap),
        *_ticks(runs),
    ]


def _lost(runs: dict[str, Any], accepted: set[str], waiting: Collection[str]) -> Iterator[str]:
    for run_id in accepted - runs.keys():
        yield f"{run_id}: accepted, and its record is gone"
    for run_id, run in runs.items():
        if (run["state"] in FINAL) == (run_id in waiting):
            yield f"{run_id} ({run['action']}): is {run['state']} in the end"


def _histories(runs: dict[str, Any], events: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    for run_id, run in runs.items():
        seqs = [event["seq"] for event in events[run_id]]
        if seqs != list(range(1, len(seqs) + 1)):
            yield f"{run_id}: events are numbered {seqs}"
        if run["last_seq"] != len(seqs):
            yield f"{run_id}: last_seq is {run['last_seq']}, and there are {len(seqs)} events"
        states = _states(events[run_id])
        if run["state"] in FINAL and [state for state in states if state in FINAL] != [run["state"]]:
            yield f"{run_id}: is {run['state']}, and its events tell {states}"
        if states[-1:] != [run["state"]]:
            yield f"{run_id}: is {run['state']}, and its last event says {states[-1:]}"


def _executions(
    runs: dict[str, Any], events: dict[str, list[dict[str, Any]]], executions: dict[str, list[Execution]]
) -> Iterator[str]:
    """Each execution has its own claim on record, and each claim but the first follows a recorded giving-back."""
    for run_id, performed in executions.items():
        states = _states(events[run_id])
        if len(performed) > states.count("running"):
            yield f"{run_id}: performed {len(performed)} times, and its events tell {states}"
        for before, after in pairwise(states):
            if (before, after) == ("running", "running"):
                yield f"{run_id}: claimed twice without having been given back: {states}"
    for run_id, run in runs.items():
        if run["state"] == "succeeded" and not executions.get(run_id):
            yield f"{run_id}: succeeded without having been performed"


def _jobs(runs: dict[str, Any], jobs: dict[int, Any]) -> Iterator[str]:
    by_job = {run["job_id"]: run for run in runs.values()}
    for job_id, job in jobs.items():
        run = by_job.get(job_id)
        if job["status"] == "doing":
            yield f"job {job_id}: is still doing"
        if run is None and ":" not in job["task_name"]:
            yield f"job {job_id}: has no run"
        if run is not None and run["state"] not in AGREES[job["status"]]:
            yield f"job {job_id}: is {job['status']}, and its run is {run['state']}"


def troubles(runs: Mapping[str, Any]) -> Iterator[str]:
    """Runs that pages and dead letters would not find, or find where they are not."""
    for run_id, run in runs.items():
        if run["trouble"] != (run["state"] if run["state"] in TROUBLES else None):
            yield f"{run_id}: is {run['state']}, and its trouble is {run['trouble']}"
        if (run["fingerprint"] is not None) != (run["state"] == "failed" and run["discarded_at"] is None):
            yield f"{run_id}: is {run['state']}, and its fingerprint is {run['fingerprint']}"


def locks(claims: Mapping[str, list[Claim]]) -> Iterator[str]:
    """Those that hold a lock hold it alone; what a zombie still does before it notices is allowed."""
    by_lock: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for run_id, of_run in claims.items():
        for claim in of_run:
            for execution in claim.executions:
                if execution.lock:
                    by_lock[execution.lock].append((*claim.held(execution), run_id))
    for lock, held in by_lock.items():
        for (_, end, before), (begin, _, after) in pairwise(sorted(held)):
            if begin < end:
                yield f"lock {lock}: {before} and {after} ran at the same time"


def failures(
    runs: Mapping[str, Any], claims: Mapping[str, list[Claim]], absences: Collection[Absence], crash_cap: int
) -> Iterator[str]:
    """A run fails for lost workers only if so many were lost, each of them while it held the run."""
    for run_id, run in runs.items():
        if run["state"] == "failed" and run["error"]["type"] == LOST:
            lost = [claim for claim in claims[run_id] if claim.is_lost]
            if len(lost) < crash_cap:
                yield f"{run_id}: failed because {crash_cap} workers were lost, and its events tell of {len(lost)}"
            for claim in lost:
                if not any(absence.explains(claim) for absence in absences):
                    yield f"{run_id}: its worker of attempt {claim.attempt} was taken for dead, and it was there"


def _ticks(runs: Mapping[str, Any]) -> Iterator[str]:
    """Every second from the first tick to the last has its run, and one only."""
    ticks = sorted(run["params"]["timestamp"] for run in runs.values() if run["action"] == "tick")
    for before, after in pairwise(ticks):
        if after != before + 1:
            yield f"the tick after {before} is {after}"


def _states(events: list[dict[str, Any]]) -> list[str]:
    return [event["data"]["state"] for event in told_states(events)]
