"""Faults of workers while runs wait for their children: none is spawned twice, and none waits for ever."""

from __future__ import annotations

from tests.faults.trial import Trial

COUNT = "SELECT count(*) FROM action_runs WHERE parent_id = :id"


async def test_who_dies_between_spawning_and_waiting_finds_its_children_again(trial: Trial) -> None:
    async with trial.supervised(1):
        run = await trial.submit("family", size=5, dies=True)
        ended = await trial.state(run, "succeeded", within=40)
        await trial.all_ended()
    assert (ended.result, ended.attempt) == (5, 2)
    assert await trial.workshop.value(COUNT, id=run.id) == 5


async def test_workers_that_are_killed_lose_no_child_and_no_parent(trial: Trial) -> None:
    async with trial.supervised(2, WORKER_CONCURRENCY="4"):
        families = [await trial.submit("family", size=12, seconds=0.3) for _ in range(3)]
        for _ in range(2):
            await trial.begun(await trial.submit("nap", seconds=0.1))
            next(worker for worker in trial.workers if worker.poll() is None).kill()
        for run in families:
            assert (await trial.state(run, "succeeded", within=60)).result == 12
        await trial.all_ended()
    for run in families:
        assert await trial.workshop.value(COUNT, id=run.id) == 12
    assert await trial.workshop.value("SELECT count(*) FROM run_waits") == 0
