"""Workers whose clock is wrong: the database's decides."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.faults.test_schedules import ticked
from tests.faults.trial import Trial

from app.runs.schemas import RunCreate

HOUR = 3600
LATE = "SELECT max(extract(epoch FROM created_at) - (params->>'timestamp')::int) FROM action_runs WHERE action = 'tick'"


@pytest.mark.parametrize("skew", [HOUR, -HOUR])
async def test_a_worker_whose_clock_is_wrong_acts_by_the_databases(trial: Trial, skew: int) -> None:
    await trial.worker(SKEW=str(skew), TICKING="1")
    beside = await trial.worker()
    # Longer than the lease: neither takes the other for dead.
    held = await trial.submit_many(12, "nap", seconds=3)
    retried = await trial.submit("flaky", failures=2)
    now = await trial.workshop.value("SELECT now()")
    scheduled = await trial.request(RunCreate(action="instant", schedule_at=now + timedelta(seconds=1.5)))
    await ticked(trial, 3)
    beside.terminate()
    assert await trial.exits(beside) == 0
    # By the skewed one alone.
    flaky = await trial.submit("flaky", failures=2)
    for run in (retried, flaky, scheduled, *held):
        await trial.state(run, "succeeded")
    started = (await trial.workshop.get(scheduled)).started_at
    assert started is not None
    assert timedelta(0) <= started - (now + timedelta(seconds=1.5)) < timedelta(seconds=2)
    assert await trial.workshop.value(LATE) < 2
    assert await trial.workshop.value("SELECT sum(crashes) FROM action_runs") == 0
