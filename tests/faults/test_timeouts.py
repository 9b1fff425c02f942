"""Runs that take longer than they may."""

from __future__ import annotations

import pytest
from tests.faults import actions
from tests.faults.trial import Trial
from tests.support.eventually import eventually


@pytest.fixture(autouse=True)
def overruns(trial: Trial) -> None:
    actions.register_overruns(trial.workshop.action, trial.effects)


async def test_a_run_that_overruns_its_timeout_fails(trial: Trial) -> None:
    worker = await trial.worker(OVERRUNS="1")
    run = await trial.submit("overrun")
    failed = await trial.state(run, "failed", within=10)
    assert failed.error is not None
    assert failed.error["type"] == "/problems/timeout"
    assert worker.poll() is None


async def test_a_worker_whose_run_ignores_cancellation_is_replaced(trial: Trial) -> None:
    async with trial.supervised(1, OVERRUNS="1") as codes:
        run = await trial.submit("stubborn")
        await trial.begun(run)
        fresh = await trial.submit("instant")
        await trial.state(fresh, "succeeded")
        await trial.state(run, "failed", within=40)
        # The worker that cannot get rid of it makes room for another.
        await eventually(lambda: exited(codes))
        assert codes[0] == 75
        fresh = await trial.submit("instant")
        await trial.state(fresh, "succeeded")


async def exited(codes: list[int]) -> bool:
    return bool(codes)
