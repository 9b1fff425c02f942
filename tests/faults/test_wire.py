"""Faults of the wire between workers and the server."""

from __future__ import annotations

import asyncio

import pytest
from procrastinate.exceptions import ConnectorException
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from tests.faults.proxy import Happened, Proxy
from tests.faults.trial import Trial

from app.runs import submission
from app.runs.intake import Intake
from app.runs.schemas import RunCreate


def is_any(trial: Trial, state: str = "%") -> Happened:
    """Whether there is a run in that state."""

    async def happened() -> bool:
        return bool(
            await trial.workshop.value("SELECT 1 FROM action_runs WHERE state LIKE :state LIMIT 1", state=state)
        )

    return happened


async def test_a_submission_whose_answer_was_lost_is_one_run(cluster_trial: Trial, proxy: Proxy) -> None:
    await cluster_trial.worker()
    lost = proxy.lose_answer(is_any(cluster_trial))
    engine = create_async_engine(proxy.url, poolclass=NullPool)
    intake = Intake(engine, timeout=2)
    with pytest.raises(ConnectorException):
        await submission.submit(intake, cluster_trial.workshop.action["instant"], RunCreate(action="instant"))
    assert lost.is_set()
    assert len(await cluster_trial.workshop.fetch("SELECT 1 FROM action_runs")) == 1
    await cluster_trial.all_ended()
    assert len(cluster_trial.effects.executions()) == 1
    await intake.aclose()
    await engine.dispose()


async def test_a_claim_whose_answer_was_lost_is_given_back_by_the_same_worker(
    cluster_trial: Trial, proxy: Proxy
) -> None:
    worker = await cluster_trial.worker(proxy.url)
    lost = proxy.lose_answer(is_any(cluster_trial, "running"))
    run = await cluster_trial.submit("instant")
    await asyncio.wait_for(lost.wait(), 10)
    assert await cluster_trial.begun(run) == worker.pid
    await cluster_trial.state(run, "succeeded")
    assert len(cluster_trial.effects.of_run(run.id)) == 1


async def test_a_finish_whose_answer_was_lost_is_written_once(cluster_trial: Trial, proxy: Proxy) -> None:
    worker = await cluster_trial.worker(proxy.url)
    lost = proxy.lose_answer(is_any(cluster_trial, "succeeded"))
    run = await cluster_trial.submit("instant")
    await asyncio.wait_for(lost.wait(), 10)
    await cluster_trial.state(run, "succeeded")
    fresh = await cluster_trial.submit("instant")
    assert await cluster_trial.begun(fresh) == worker.pid
    assert len(cluster_trial.effects.of_run(run.id)) == 1


async def test_a_frozen_wire_is_survived(cluster_trial: Trial, proxy: Proxy) -> None:
    worker = await cluster_trial.worker(proxy.url)
    run = await cluster_trial.submit("nap", seconds=1)
    await cluster_trial.begun(run)
    proxy.freeze()
    waiting = await cluster_trial.submit_many(5, "instant")
    await asyncio.sleep(6)  # the length of the fault
    proxy.thaw()
    for each in [run, *waiting]:
        await cluster_trial.state(each, "succeeded")
    assert worker.poll() is None


async def test_a_worker_on_a_frozen_wire_obeys_sigterm(cluster_trial: Trial, proxy: Proxy) -> None:
    worker = await cluster_trial.worker(proxy.url)
    run = await cluster_trial.submit("nap", seconds=60)
    await cluster_trial.begun(run)
    proxy.freeze()
    worker.terminate()
    assert await cluster_trial.exits(worker, within=25) == 0
    proxy.thaw()
    await cluster_trial.worker()
    await cluster_trial.begun(run, times=2)
    job = await cluster_trial.workshop.value("SELECT min(job_id) FROM action_runs")
    await cluster_trial.workshop.queue.job_manager.cancel_job_by_id_async(job, abort=True)
    await cluster_trial.state(run, "cancelled")


async def test_a_wire_that_is_cut_again_and_again_loses_nothing(cluster_trial: Trial, proxy: Proxy) -> None:
    worker = await cluster_trial.worker(proxy.url)
    runs = await cluster_trial.submit_many(100, "nap", seconds=0.1)
    for _ in range(10):
        proxy.cut()
        await asyncio.sleep(0.3)  # the rhythm of the fault
    await cluster_trial.all_ended()
    assert {(await cluster_trial.workshop.get(run)).state for run in runs} == {"succeeded"}
    assert worker.poll() is None


async def test_a_server_that_refuses_is_asked_until_it_accepts(cluster_trial: Trial, proxy: Proxy) -> None:
    worker = await cluster_trial.worker(proxy.url)
    proxy.refuse()
    proxy.cut()
    runs = await cluster_trial.submit_many(5, "instant")
    await asyncio.sleep(2)  # the length of the fault
    proxy.refuse(False)
    for run in runs:
        await cluster_trial.state(run, "succeeded")
    assert worker.poll() is None
