"""Faults of the server: restarted, killed sessions, refused statements, garbage on its channels."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

import asyncpg
import pytest
from tests.faults.cluster import Cluster
from tests.faults.trial import Trial, ask_until, patiently
from tests.support.silence import SILENCE

LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'LISTEN%'"
SESSIONS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def restart(cluster: Cluster, mode: Literal["immediate", "fast"], down: float) -> None:
    await asyncio.to_thread(cluster.stop, mode)
    await asyncio.sleep(down)  # the length of the outage, not a wait for something
    await asyncio.to_thread(cluster.start)


async def listening(trial: Trial, wanted: int = 1) -> None:
    async def back() -> bool:
        return await trial.workshop.value(LISTENING) == wanted

    await ask_until(back)


@pytest.mark.parametrize(("mode", "down"), [("immediate", 1.0), ("fast", 1.0), ("immediate", 5.0)])
async def test_an_idle_worker_outlives_a_restart_and_hears_again(
    cluster_trial: Trial, cluster: Cluster, mode: Literal["immediate", "fast"], down: float
) -> None:
    worker = await cluster_trial.worker()
    await listening(cluster_trial)
    await restart(cluster, mode, down)
    await listening(cluster_trial)
    run = await cluster_trial.submit("instant")
    assert await cluster_trial.begun(run) == worker.pid


@pytest.mark.parametrize("mode", ["immediate", "fast"])
async def test_a_busy_worker_outlives_a_restart(
    cluster_trial: Trial, cluster: Cluster, mode: Literal["immediate", "fast"]
) -> None:
    worker = await cluster_trial.worker()
    runs = await cluster_trial.submit_many(40, "nap", seconds=0.3)
    await cluster_trial.begun(runs[10])
    await restart(cluster, mode, 0.5)
    await ask_until(lambda: cluster_trial.state(runs[-1], "succeeded"))
    assert worker.poll() is None


async def test_what_ends_during_a_short_outage_is_performed_once(cluster_trial: Trial, cluster: Cluster) -> None:
    worker = await cluster_trial.worker(LEASE_SECONDS="30")
    runs = await cluster_trial.submit_many(4, "nap", seconds=1)
    for run in runs:
        await cluster_trial.begun(run)
    await restart(cluster, "immediate", 1.5)
    for run in runs:
        await ask_until(lambda run=run: cluster_trial.state(run, "succeeded"))
    assert worker.poll() is None
    assert len(cluster_trial.effects.executions()) == 4


async def test_what_ends_during_an_outage_longer_than_the_lease_ends_once(
    cluster_trial: Trial, cluster: Cluster
) -> None:
    await cluster_trial.worker()
    await cluster_trial.worker()
    runs = await cluster_trial.submit_many(4, "nap", seconds=1)
    for run in runs:
        await cluster_trial.begun(run)
    await restart(cluster, "immediate", 3.5)
    for run in runs:
        await ask_until(lambda run=run: cluster_trial.state(run, "succeeded"))
        assert len(cluster_trial.effects.of_run(run.id)) <= 2, cluster_trial.effects.of_run(run.id)


async def test_a_finish_that_is_cancelled_is_written_again(trial: Trial) -> None:
    await trial.worker()
    run = await trial.submit("nap", seconds=0.5)
    await trial.begun(run)
    job = await trial.workshop.value("SELECT job_id FROM action_runs")
    async with trial.workshop.engine.begin() as connection:
        await connection.exec_driver_sql(f"SELECT FROM procrastinate_jobs WHERE id = {job} FOR UPDATE")

        async def finish_cancelled() -> bool | None:
            return await trial.workshop.value(f"SELECT pg_cancel_backend(pid) {SESSIONS} AND wait_event_type = 'Lock'")

        await patiently(finish_cancelled)
    await trial.state(run, "succeeded", within=5)
    assert len(trial.effects.of_run(run.id)) == 1


async def test_a_heartbeat_that_is_cancelled_beats_again(trial: Trial) -> None:
    worker = await trial.worker()
    run = await trial.submit("nap", seconds=4)
    await trial.begun(run)
    async with trial.workshop.engine.begin() as connection:
        await connection.exec_driver_sql("LOCK TABLE procrastinate_workers IN ACCESS EXCLUSIVE MODE")

        async def beat_cancelled() -> bool | None:
            return await trial.workshop.value(f"SELECT pg_cancel_backend(pid) {SESSIONS} AND wait_event_type = 'Lock'")

        await patiently(beat_cancelled)

    async def beats() -> bool:
        return await trial.workshop.value("SELECT now() - max(last_heartbeat) < '1 second' FROM procrastinate_workers")

    await patiently(beats)
    fresh = await trial.submit("instant")
    assert await trial.begun(fresh) == worker.pid
    await trial.state(run, "succeeded")
    assert len(trial.effects.of_run(run.id)) == 1


async def test_a_listener_whose_sessions_are_killed_hears_what_was_said_in_the_gap(trial: Trial) -> None:
    # Nothing is found by polling: only a bell, or the look after a gap.
    await trial.worker(POLL_SECONDS="60", SWEEP_SECONDS="60")
    await listening(trial)
    for _ in range(5):
        await patiently(lambda: trial.workshop.value(LISTENING))
        await trial.workshop.execute(f"SELECT pg_terminate_backend(pid) {SESSIONS} AND query ILIKE 'LISTEN%'")
        await trial.state(await trial.submit("instant"), "succeeded")
    await listening(trial)


@pytest.mark.parametrize(
    "payload", ["", "garbage", "5", "[]", '{"type": "x"}', '{"type": 7, "job_id": "y"}', "x" * 7999]
)
async def test_garbage_on_the_channel_is_survived(trial: Trial, payload: str) -> None:
    worker = await trial.worker()
    await listening(trial)
    await trial.workshop.execute("SELECT pg_notify('procrastinate_any_queue_v1', :payload)", payload=payload)
    run = await trial.submit("instant")
    assert await trial.begun(run) == worker.pid
    await listening(trial)


async def test_with_notify_off_everything_still_happens(trial: Trial) -> None:
    for statement in SILENCE:
        await trial.workshop.execute(statement)
    await trial.worker()
    runs = [
        await trial.submit("instant"),
        await trial.submit("flaky", failures=2),
        await trial.submit("stepped", steps=3),
        *[await trial.submit("nap", seconds=0.1, lock="one") for _ in range(3)],
    ]
    await trial.all_ended()
    assert {(await trial.workshop.get(run)).state for run in runs} == {"succeeded"}
    long = await trial.submit("nap", seconds=600)
    await trial.begun(long)
    job = await trial.workshop.value("SELECT max(job_id) FROM action_runs")
    await trial.workshop.queue.job_manager.cancel_job_by_id_async(job, abort=True)
    await trial.state(long, "cancelled", within=5)


async def test_a_deleted_worker_row_comes_back_and_its_run_goes_on(trial: Trial) -> None:
    worker = await trial.worker()
    run = await trial.submit("nap", seconds=2)
    await trial.begun(run)
    await trial.workshop.execute("DELETE FROM procrastinate_workers")
    fresh = await trial.submit("instant")
    assert await trial.begun(fresh) == worker.pid
    await trial.state(run, "succeeded")
    assert await trial.registered()


async def test_a_run_that_cannot_be_rescued_does_not_hold_up_the_others(trial: Trial) -> None:
    first = await trial.worker()
    runs = await trial.submit_many(4, "nap", seconds=2)
    for run in runs:
        await trial.begun(run)
    await trial.workshop.execute(
        f"ALTER TABLE action_runs ADD CONSTRAINT stuck CHECK (NOT (id = '{runs[0].id}' AND crashes > 0))"
    )
    first.kill()
    await trial.worker()
    for run in runs[1:]:
        await trial.state(run, "succeeded")
    assert (await trial.workshop.get(runs[0])).state == "running"
    await trial.workshop.execute("ALTER TABLE action_runs DROP CONSTRAINT stuck")
    await trial.state(runs[0], "succeeded")


async def take_every_connection(url: str) -> list[asyncpg.Connection]:
    taken: list[asyncpg.Connection] = []
    with contextlib.suppress(asyncpg.TooManyConnectionsError):
        while True:
            taken.append(await asyncpg.connect(url))
    return taken


async def test_max_connections_exhausted_is_survived(cluster_trial: Trial, cluster: Cluster) -> None:
    worker = await cluster_trial.worker()
    await listening(cluster_trial)
    owner = cluster.url.set(drivername="postgresql").render_as_string(hide_password=False)
    taken = await take_every_connection(owner)
    database = cluster_trial.workshop.engine.url.database
    await cluster.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
    taken += await take_every_connection(owner)
    await asyncio.sleep(3)  # the length of the fault
    for connection in taken:
        await connection.close()
    await listening(cluster_trial)
    run = await cluster_trial.submit("instant")
    assert await cluster_trial.begun(run) == worker.pid


async def test_a_read_only_database_is_survived(cluster_trial: Trial, cluster: Cluster) -> None:
    worker = await cluster_trial.worker()
    run = await cluster_trial.submit("nap", seconds=1)
    waiting = await cluster_trial.submit_many(15, "nap", seconds=0.5)
    await cluster_trial.begun(run)
    await cluster.execute("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    try:
        await asyncio.sleep(4)  # the length of the fault
    finally:
        await cluster.execute(
            "SET default_transaction_read_only = off",
            "ALTER SYSTEM RESET default_transaction_read_only",
            "SELECT pg_reload_conf()",
        )
    for each in [run, *waiting]:
        await cluster_trial.state(each, "succeeded")
    assert worker.poll() is None
