"""Pruning: at a cost that does not depend on what the ledger holds, and in nobody's way."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from tests.support.eventually import eventually
from tests.support.plans import root_of, scanned
from tests.support.workshop import Workshop

from app.engine.retry import Retry
from app.errors import RunNotFound
from app.runs import queries, service
from app.runs.queries import ended
from app.runs.schemas import RunRead

MONTH = timedelta(days=30)


async def failed(workshop: Workshop, *, days: int) -> RunRead:
    """A run that failed so many days ago."""

    @workshop.action(retry=Retry(max_attempts=1))
    async def fail() -> None:
        raise ValueError("no")

    run = await workshop.submit("fail")
    await workshop.drain()
    await workshop.execute(
        "UPDATE action_runs SET created_at = now() - CAST(:age AS interval), "
        "finished_at = now() - CAST(:age AS interval)",
        age=timedelta(days=days),
    )
    return run


async def fill(workshop: Workshop, count: int, *, days: int, ended: bool = True) -> None:
    """Runs and jobs accepted, and if they have ended, ended so many days ago."""
    async with workshop.engine.begin() as connection:
        # Without the triggers: the runs are inserted as they are to be.
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(
            text("""
                WITH job AS (
                    INSERT INTO procrastinate_jobs (task_name, queue_name, status)
                    SELECT 'x', 'default', CASE WHEN :ended THEN 'succeeded' ELSE 'todo' END::procrastinate_job_status
                      FROM generate_series(1, :count)
                    RETURNING id
                )
                INSERT INTO action_runs (job_id, action, params, state, queue, priority, created_at, finished_at)
                SELECT id, 'x', '{}', CASE WHEN :ended THEN 'succeeded' ELSE 'queued' END, 'default', 0,
                       now() - CAST(:age AS interval), CASE WHEN :ended THEN now() - CAST(:age AS interval) END
                  FROM job ORDER BY id
            """),
            {"count": count, "age": timedelta(days=days), "ended": ended},
        )


async def read_by_a_batch(workshop: Workshop, *, after: int = 0) -> dict[str, float]:
    """The rows of each table that one batch of a hundred reads."""
    async with workshop.engine.connect() as connection:
        statement = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {ended._DELETE_ENDED_RUNS}")
        arguments = {"after": after, "older_than": MONTH, "limit": 100}
        plan = root_of((await connection.execute(statement, arguments)).scalar_one())
        await connection.rollback()
    return {table: scanned(plan, table) for table in ("action_runs", "procrastinate_jobs", "run_events")}


@pytest.mark.parametrize("statistics", ["fresh", "of an empty table"])
@pytest.mark.parametrize("old", [0, 3, 10_000])
async def test_a_batch_reads_little_whatever_the_ledger_holds(workshop: Workshop, statistics: str, old: int) -> None:
    if old:
        await fill(workshop, old, days=31)
    await fill(workshop, 10_000, days=3)
    if statistics == "fresh":
        await workshop.execute("ANALYZE action_runs, procrastinate_jobs, run_events")
    read = await read_by_a_batch(workshop)
    # The page, its old ones to be locked, and again to be deleted; of the jobs the same.
    assert read["action_runs"] <= 300, read
    assert read["procrastinate_jobs"] <= 300, read
    assert read["run_events"] == 0, read


async def test_what_is_old_and_has_not_ended_is_passed_by(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PRUNE_BATCH", 10)
    await fill(workshop, 25, days=40, ended=False)
    await fill(workshop, 5, days=35)
    await fill(workshop, 1, days=31, ended=False)
    await fill(workshop, 30, days=31)
    await fill(workshop, 30, days=3)
    assert await service.prune(workshop.engine, older_than=MONTH) == 35
    assert await service.prune(workshop.engine, older_than=MONTH) == 0
    assert await workshop.value("SELECT count(*) FROM action_runs") == 56
    assert await workshop.value("SELECT count(*) FROM procrastinate_jobs") == 56


async def test_the_walk_ends_where_runs_are_young(workshop: Workshop) -> None:
    await fill(workshop, 10, days=31)
    await fill(workshop, 10, days=3)
    async with workshop.engine.begin() as connection:
        deleted, after = await queries.delete_ended_runs(connection, after=0, older_than=MONTH, limit=10)
        assert (deleted, after is None) == (10, False)
        assert after is not None
        assert await queries.delete_ended_runs(connection, after=after, older_than=MONTH, limit=10) == (0, None)


async def test_a_run_whose_job_is_gone_is_pruned_too(workshop: Workshop) -> None:
    await failed(workshop, days=31)
    await workshop.execute("DELETE FROM procrastinate_jobs")
    assert await service.prune(workshop.engine, older_than=MONTH) == 1


async def test_a_run_that_is_being_retried_is_left_alone(workshop: Workshop) -> None:
    run = await failed(workshop, days=31)
    job = await workshop.value("SELECT job_id FROM action_runs")
    async with workshop.engine.begin() as retrying:
        # Who retries holds the job, then wants the run: whoever held the run and wanted the job would be its deadlock.
        await retrying.execute(text("SELECT FROM procrastinate_jobs WHERE id = :id FOR UPDATE"), {"id": job})
        assert await service.prune(workshop.engine, older_than=MONTH) == 0
        assert await queries.requeue_ended_job(retrying, job_id=job)
    assert (await workshop.get(run)).state == "retrying"
    assert await service.prune(workshop.engine, older_than=MONTH) == 0


async def test_who_retries_a_run_that_is_being_pruned_is_told_that_it_has_gone(workshop: Workshop) -> None:
    run = await failed(workshop, days=31)
    async with workshop.engine.begin() as pruning:
        assert (await queries.delete_ended_runs(pruning, after=0, older_than=MONTH, limit=10))[0] == 1
        retry = asyncio.create_task(service.retry(workshop.engine, run.id))

        async def waits() -> bool:
            return bool(
                await workshop.value(
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
            )

        await eventually(waits)
    with pytest.raises(RunNotFound):
        await retry
