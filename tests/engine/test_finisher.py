"""The finish: in batches, fenced, and again until it is written."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from procrastinate.exceptions import ConnectorException
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.plans import explain, scanned
from tests.support.workshop import Workshop

from app.engine import queries
from app.engine.claims import ClaimedJob, Claims
from app.engine.link import Link
from app.engine.queries.finish import _END_JOBS


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many endings each statement wrote."""
    sizes: list[int] = []
    end = queries.end_jobs

    async def note(database: queries.Database, *, worker_id: int, ended: Any) -> set[int]:
        sizes.append(len(ended))
        return await end(database, worker_id=worker_id, ended=ended)

    monkeypatch.setattr(queries, "end_jobs", note)
    return sizes


async def test_what_ends_together_is_written_together(workshop: Workshop, batches: list[int]) -> None:
    @workshop.action()
    async def nothing() -> None: ...

    runs = [await workshop.submit("nothing") for _ in range(20)]
    await workshop.drain(concurrency=20)
    assert {(await workshop.get(run)).state for run in runs} == {"succeeded"}
    assert sum(batches) == 20
    assert len(batches) <= 3


@pytest.mark.parametrize("statistics", ["fresh", "of an empty table"])
async def test_an_ending_reads_its_own_runs_whatever_the_tables_hold(
    workshop: Workshop, engine: AsyncEngine, statistics: str
) -> None:
    await workshop.queue.configure_task("nothing", allow_unknown=True).batch_defer_async(*[{}] * 5_000)
    await workshop.execute("UPDATE procrastinate_jobs SET status = 'cancelled'")
    await workshop.queue.configure_task("nothing", allow_unknown=True).batch_defer_async(*[{}] * 20)
    if statistics == "fresh":
        await workshop.execute("ANALYZE procrastinate_jobs, action_runs")
    worker_id = await workshop.queue.job_manager.register_worker()
    link = Link(engine, timeout=20)
    ids = [job.id for job in await Claims(link, None).claim(worker_id, 20)]
    plan = await explain(link, _END_JOBS, {
        "worker_id": worker_id, "job_ids": ids, "attempts": [0] * 20, "statuses": ["succeeded"] * 20,
        "results": ["null"] * 20, "details": [None] * 20,
    })  # fmt: skip
    link.close()
    assert [row["state"] for row in await workshop.fetch("SELECT state FROM action_runs WHERE finished_at IS NOT NULL "
                                                         "AND state <> 'cancelled'")] == ["succeeded"] * 20  # fmt: skip
    assert (scanned(plan, "procrastinate_jobs"), scanned(plan, "action_runs")) == (20, 20)


async def test_an_ending_that_the_database_refuses_holds_up_no_other(workshop: Workshop, batches: list[int]) -> None:
    @workshop.queue.task(name="plain")
    async def plain(bad: bool) -> str:
        return "a\x00b" if bad else "fine"

    for number in range(5):
        await plain.defer_async(bad=number == 2)
    await workshop.drain(concurrency=5)
    rows = await workshop.fetch("SELECT state, result, error FROM action_runs ORDER BY job_id")
    assert [row["state"] for row in rows] == ["succeeded", "succeeded", "failed", "succeeded", "succeeded"]
    assert rows[2]["error"]["type"] == "/problems/untellable"
    assert rows[0]["result"] == "fine"


async def test_endings_wait_for_the_database_and_no_more_is_claimed_meanwhile(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, back = asyncio.Event(), asyncio.Event()
    claims: list[int] = []
    end, claim = queries.end_jobs, Claims.claim

    async def away(database: queries.Database, *, worker_id: int, ended: Any) -> set[int]:
        if not back.is_set():
            failed.set()
            raise ConnectorException
        return await end(database, worker_id=worker_id, ended=ended)

    async def count(self: Claims, worker_id: int, limit: int) -> list[ClaimedJob]:
        if failed.is_set() and not back.is_set():
            claims.append(1)
        return await claim(self, worker_id, limit)

    monkeypatch.setattr(queries, "end_jobs", away)
    monkeypatch.setattr(Claims, "claim", count)

    @workshop.action()
    async def nothing() -> None: ...

    first = await workshop.submit("nothing")
    async with workshop.working(concurrency=1):
        await asyncio.wait_for(failed.wait(), 20)
        second = await workshop.submit("nothing")
        assert (await workshop.get(first)).state == "running"
        assert (await workshop.get(second)).state == "queued"
        back.set()
        await workshop.reaches(first, "succeeded")
        await workshop.reaches(second, "succeeded")
    assert claims == []


async def test_an_ending_that_was_written_although_its_answer_was_lost_is_written_once(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = queries.end_jobs
    lost: list[int] = []

    async def lose_the_first_answer(database: queries.Database, *, worker_id: int, ended: Any) -> set[int]:
        answer = await end(database, worker_id=worker_id, ended=ended)
        if not lost:
            lost.append(1)
            raise ConnectorException
        return answer

    monkeypatch.setattr(queries, "end_jobs", lose_the_first_answer)

    @workshop.action()
    async def nothing() -> None: ...

    run = await workshop.submit("nothing")
    await workshop.drain()
    assert lost
    assert await workshop.states(run) == ["queued", "running", "succeeded"]
