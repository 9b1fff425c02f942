"""Faults of worker processes: killed, stopped, blocked, told to stop."""

from __future__ import annotations

import asyncio
import contextlib

from tests.faults.trial import Trial, patiently

from app.errors import RunFinal
from app.runs import service
from app.runs.state import RunState


async def test_a_killed_workers_runs_are_performed_by_others(trial: Trial) -> None:
    first = await trial.worker()
    runs = await trial.submit_many(12, "nap", seconds=1)
    await trial.begun(runs[0])
    first.kill()
    await trial.worker()
    await trial.all_ended()
    assert {(await trial.workshop.get(run)).state for run in runs} == {"succeeded"}
    lost = await trial.workshop.value("SELECT sum(crashes) FROM action_runs")
    assert len(trial.effects.executions()) - len(runs) <= lost


async def test_sigterm_lets_what_ends_within_grace_end(trial: Trial) -> None:
    worker = await trial.worker()
    runs = await trial.submit_many(8, "nap", seconds=1)
    for run in runs:
        await trial.begun(run)
    worker.terminate()
    assert await trial.exits(worker) == 0
    assert {(await trial.workshop.get(run)).state for run in runs} == {"succeeded"}
    assert len(trial.effects.executions()) == len(runs)


async def test_sigterm_gives_what_is_longer_than_grace_back_with_its_attempt(trial: Trial) -> None:
    worker = await trial.worker()
    run = await trial.submit("nap", seconds=6)
    await trial.begun(run)
    worker.terminate()
    assert await trial.exits(worker) == 0
    back = await trial.workshop.get(run)
    assert (back.state, back.attempt) == ("queued", 0)
    await trial.worker()
    ended = await trial.state(run, "succeeded")
    assert ended.attempt == 1


async def test_a_worker_that_drains_longer_than_the_lease_keeps_its_runs(trial: Trial) -> None:
    draining = await trial.worker(GRACE_SECONDS="10")
    run = await trial.submit("nap", seconds=5)
    await trial.begun(run)
    draining.terminate()
    await trial.worker()
    assert await trial.exits(draining) == 0
    assert (await trial.workshop.get(run)).state == "succeeded"
    assert len(trial.effects.of_run(run.id)) == 1


async def test_a_zombie_that_wakes_writes_nothing_and_takes_new_work(trial: Trial) -> None:
    zombie = await trial.worker()
    run = await trial.submit("nap", seconds=2, lock="one")
    await trial.begun(run)
    async with trial.paused(zombie):
        other = await trial.worker()
        assert await trial.begun(run, times=2) == other.pid
        await trial.state(run, "succeeded")
    other.terminate()
    assert await trial.exits(other) == 0
    fresh = await trial.submit("instant")
    assert await trial.begun(fresh) == zombie.pid
    ended = await trial.workshop.get(run)
    assert (ended.state, ended.attempt, ended.result) == ("succeeded", 2, 2)


async def test_a_worker_that_was_stopped_for_longer_than_the_watchdog_allows_goes_on(trial: Trial) -> None:
    worker = await trial.worker()
    async with trial.paused(worker):
        await asyncio.sleep(7)  # the length of the pause: the watchdog of the tests allows 6
    fresh = await trial.submit("instant")
    assert await trial.begun(fresh) == worker.pid
    await trial.state(fresh, "succeeded")
    assert worker.poll() is None


async def test_a_blocked_event_loop_ends_the_process_and_its_run_fails_at_the_cap(trial: Trial) -> None:
    async with trial.supervised(1, CRASH_CAP="2") as codes:
        run = await trial.submit("block", seconds=30)
        ended = await trial.state(run, "failed", within=40)
        assert ended.error is not None
        assert ended.error["type"] == "/problems/worker-lost"
        assert set(codes) == {75}
        assert "block" in trial.log.read_text(), "the blocker's stack is in the log"


async def test_a_poison_pill_fails_at_the_cap_and_the_others_succeed(trial: Trial) -> None:
    async with trial.supervised(2):
        pill = await trial.submit("pill")
        runs = await trial.submit_many(20, "nap", seconds=0.1)
        failed = await trial.state(pill, "failed", within=40)
        await trial.all_ended()
        assert failed.error is not None
        assert failed.error["type"] == "/problems/worker-lost"
        assert len(trial.effects.of_run(pill.id)) == trial.workshop.settings.crash_cap
        # A run beside the pill loses its worker as often as the pill kills it; it may not fail for that.
        assert {(await trial.workshop.get(run)).state for run in runs} == {"succeeded"}


async def test_a_run_of_an_unknown_action_is_put_back_and_performed_by_who_knows_it(trial: Trial) -> None:
    await trial.worker()
    await trial.workshop.queue.configure_task("from_the_future", allow_unknown=True).defer_async()

    async def postponed() -> str | None:
        return await trial.workshop.value(
            "SELECT id FROM action_runs WHERE action = 'from_the_future' AND schedule_at > now() AND attempt = 0"
        )

    trial.waiting.add(str(await patiently(postponed)))


async def test_cancelling_at_any_moment_ends_a_run_once(trial: Trial) -> None:
    await trial.worker()
    await trial.worker()

    async def submit_and_cancel(after: float | None) -> RunState:
        run = await trial.submit("nap", seconds=0.2)
        await (trial.ended(run) if after is None else asyncio.sleep(after))
        with contextlib.suppress(RunFinal):
            await service.cancel(trial.workshop.engine, trial.workshop.queue.job_manager, run.id)
        await trial.ended(run)
        return (await trial.workshop.get(run)).state

    # From before it is claimed until after it has ended, which is when depends on the machine; and once it has.
    moments = [number * 0.02 for number in range(40)]
    *states, last = await asyncio.gather(*map(submit_and_cancel, [*moments, None]))
    assert {state.value for state in states} <= {"succeeded", "cancelled"}
    assert last is RunState.SUCCEEDED
