"""Faults that come of many wanting the same: locks, connections, rows, space."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.faults.cluster import Cluster, mounted_tmpfs, unmounted
from tests.faults.trial import Trial, patiently

from app.runs.schemas import RunCreate

RUNS = 300
PROCESSES = 12


async def test_one_lock_with_random_priorities_is_held_by_one_process_at_a_time(trial: Trial) -> None:
    workers = [trial.start_worker(WORKER_CONCURRENCY="2") for _ in range(PROCESSES)]

    async def all_at_work() -> bool:
        return len(await trial.registered()) == PROCESSES

    dice = random.Random(7)
    for _ in range(RUNS // 2):
        await submit_with_priority(trial, dice)
    await patiently(all_at_work, within=60)
    # The other half comes while they race.
    for _ in range(RUNS // 2):
        await submit_with_priority(trial, dice)
    await trial.all_ended()
    assert [worker.poll() for worker in workers] == [None] * PROCESSES
    performed = trial.effects.executions()
    assert len(performed) == RUNS
    assert len({execution.pid for execution in performed}) > 1, "they were to race"


async def submit_with_priority(trial: Trial, dice: random.Random) -> None:
    await trial.request(RunCreate(action="instant", params={"lock": "one"}, lock="one", priority=dice.randint(-9, 9)))


async def test_a_retry_does_not_stumble_over_its_queueing_lock(trial: Trial) -> None:
    await trial.worker(WORKER_CONCURRENCY="1")
    first = await trial.request(RunCreate(action="flaky", params={"failures": 1, "seconds": 1}, queueing_lock="one"))
    await trial.begun(first)
    second = await trial.request(RunCreate(action="instant", queueing_lock="one"))
    await trial.state(first, "succeeded")
    await trial.state(second, "succeeded")


async def test_a_rescue_does_not_stumble_over_a_queueing_lock(trial: Trial) -> None:
    first = await trial.worker(WORKER_CONCURRENCY="1")
    lost = await trial.request(RunCreate(action="nap", params={"seconds": 1}, queueing_lock="one"))
    await trial.begun(lost)
    waiting = await trial.request(RunCreate(action="nap", params={"seconds": 0.1}, queueing_lock="one"))
    first.kill()
    await trial.worker()
    await trial.state(lost, "succeeded")
    await trial.state(waiting, "succeeded")


async def test_actions_that_take_every_connection_do_not_starve_the_worker(trial: Trial) -> None:
    worker = await trial.worker(WORKER_CONCURRENCY="30")
    hogs = await trial.submit_many(25, "hog", seconds=1.5)
    quick = await trial.submit_many(5, "instant")
    await trial.all_ended()
    states = {(await trial.workshop.get(run)).state.value for run in quick}
    assert states == {"succeeded"}
    assert worker.poll() is None
    assert await trial.workshop.value("SELECT sum(crashes) FROM action_runs") == 0
    assert {(await trial.workshop.get(run)).state.value for run in hogs} == {"succeeded"}


async def test_deadlocks_with_the_ledger_are_survived(trial: Trial) -> None:
    worker = await trial.worker()
    first, second = await trial.submit("nap", seconds=0.5), await trial.submit("nap", seconds=0.5)
    await trial.begun(first)
    await trial.begun(second)
    # The other way round than whoever ends them: run first, job second.
    async with trial.workshop.engine.connect() as connection:
        await connection.execute(
            text("SELECT FROM action_runs WHERE id = ANY(:ids) FOR UPDATE"), {"ids": [first.id, second.id]}
        )

        async def waits() -> bool | None:
            return await trial.workshop.value(
                "SELECT true FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )

        await patiently(waits)
        # One of the two is the victim, and the server chooses which.
        with contextlib.suppress(DBAPIError):
            await connection.execute(text("SELECT FROM procrastinate_jobs FOR UPDATE"))
        await connection.rollback()
    await trial.state(first, "succeeded")
    await trial.state(second, "succeeded")
    assert worker.poll() is None
    assert len(trial.effects.executions()) == 2


async def test_a_role_of_repeatable_read_works(cluster_trial: Trial, cluster: Cluster) -> None:
    await cluster.execute("ALTER ROLE runledger SET default_transaction_isolation = 'repeatable read'")
    try:
        workers = [await cluster_trial.worker() for _ in range(2)]
        await cluster_trial.submit_many(60, "nap", seconds=0.05)
        await cluster_trial.all_ended()
        assert [worker.poll() for worker in workers] == [None, None]
    finally:
        await cluster.execute("ALTER ROLE runledger RESET default_transaction_isolation")


@pytest.fixture
async def small_disk(cluster: Cluster) -> AsyncIterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="runledger-disk-"))
    if not mounted_tmpfs(folder, "24m"):
        pytest.skip("a small file system cannot be mounted here: that takes root")
    cluster.postgres._give(folder)
    await cluster.execute(f"CREATE TABLESPACE small LOCATION '{folder}'", "GRANT CREATE ON TABLESPACE small TO public")
    yield "small"
    await cluster.execute("DROP TABLESPACE small")
    unmounted(folder)


async def fill(connection: asyncpg.Connection, size: int) -> None:
    """Write rows of so many bytes until no more fits."""
    with contextlib.suppress(asyncpg.DiskFullError):
        while True:
            await connection.execute("INSERT INTO filler VALUES (repeat('x', $1))", size)


async def test_a_full_disk_is_survived(small_disk: str, cluster_trial: Trial, cluster: Cluster) -> None:
    workshop = cluster_trial.workshop
    database = str(workshop.engine.url.database)
    for table in ("procrastinate_jobs", "procrastinate_events", "action_runs", "run_events", "run_steps"):
        await cluster.execute(f"ALTER TABLE {table} SET TABLESPACE {small_disk}", database=database)
    worker = await cluster_trial.worker()
    await cluster_trial.submit_many(100, "nap", seconds=1)
    async with cluster.superuser(database) as connection:
        await connection.execute(f"CREATE TABLE filler (x text) TABLESPACE {small_disk}")
        await connection.execute("ALTER TABLE filler ALTER x SET STORAGE EXTERNAL")
        for size in (1_000_000, 100_000, 7_000):
            await fill(connection, size)
    assert await workshop.value("SELECT count(*) FROM action_runs WHERE finished_at IS NULL") > 0
    await asyncio.sleep(3)  # the length of the fault
    await cluster.execute("DROP TABLE filler", "CHECKPOINT", database=database)
    await cluster_trial.all_ended()
    assert worker.poll() is None
    for table in ("procrastinate_jobs", "procrastinate_events", "action_runs", "run_events", "run_steps"):
        await cluster.execute(f"ALTER TABLE {table} SET TABLESPACE pg_default", database=database)
