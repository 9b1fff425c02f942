"""Limits under four worker processes, as the actions themselves saw it: never one above, whoever is killed."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from tests.faults import actions
from tests.faults.effects import Execution
from tests.faults.trial import Trial, patiently

PROCESSES = 4


@pytest.fixture
async def limited(trial: Trial) -> Trial:
    """A trial with four workers at work, that know the limited actions."""
    actions.register_limited(trial.workshop.action, trial.effects)
    for _ in range(PROCESSES):
        trial.start_worker(LIMITED="yes", WORKER_CONCURRENCY="5")

    async def all_at_work() -> bool:
        return len(await trial.registered()) == PROCESSES

    await patiently(all_at_work, within=60)
    return trial


def most_at_once(executions: Sequence[Execution], killed_at: float = 0) -> int:
    """How many were between their begin and their end, at the worst moment; one without an end was killed."""
    marks = [(each.begin, 1) for each in executions] + [(each.end or killed_at, -1) for each in executions]
    running = most = 0
    for _, change in sorted(marks):
        running += change
        most = max(most, running)
    return most


async def test_no_more_run_at_once_than_the_limit(limited: Trial) -> None:
    await limited.submit_many(200, "narrow", seconds=0.005)
    await limited.all_ended()
    performed = limited.effects.executions()
    assert len(performed) == 200
    assert len({execution.pid for execution in performed}) > 1, "they were to race"
    assert most_at_once(performed) == 3, "all the places were taken, and no other"


async def test_nor_when_a_worker_is_killed_in_the_middle(limited: Trial) -> None:
    runs = await limited.submit_many(40, "narrow", seconds=0.2)
    pid = await limited.begun(runs[5])
    [victim] = [worker for worker in limited.workers if worker.pid == pid]
    victim.kill()
    await limited.exits(victim)
    killed_at = time.time()
    await limited.all_ended()
    performed = limited.effects.executions()
    assert {execution.run for execution in performed} == {run.id for run in runs}
    assert most_at_once(performed, killed_at) == 3


async def test_each_customer_is_limited_by_itself(limited: Trial) -> None:
    for _ in range(40):
        for customer in ("ada", "bo"):
            await limited.submit("sync", customer=customer)
    await limited.all_ended()
    performed = limited.effects.executions()
    assert len(performed) == 80
    for customer in ("ada", "bo"):
        assert most_at_once([each for each in performed if each.lock == customer]) == 1


async def test_no_more_start_than_the_rate(limited: Trial) -> None:
    await limited.submit_many(40, "paced")
    await limited.all_ended()
    rows = await limited.workshop.fetch(
        "SELECT extract(epoch FROM started_at) AS at FROM action_runs WHERE action = 'paced' ORDER BY started_at"
    )
    starts = [float(row["at"]) for row in rows]
    assert len(starts) == 40
    for first, begin in enumerate(starts):
        for last, end in enumerate(starts[first:], first):
            assert last - first + 1 <= 2 + (end - begin) * 20 + 0.001
