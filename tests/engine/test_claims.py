"""The claim: in order, one a lock, and at a cost that does not depend on what else is in the table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from procrastinate.exceptions import UniqueViolation
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.plans import explain, scanned
from tests.support.workshop import Workshop

from app.engine import claims, queries
from app.engine.claims import Claims
from app.engine.link import Link
from app.engine.queries.claim import _CLAIM_JOBS, _CLAIM_READY_JOBS


@pytest.fixture
async def link(engine: AsyncEngine) -> AsyncIterator[Link]:
    link = Link(engine, timeout=20)
    yield link
    link.close()


@pytest.fixture
async def worker_id(workshop: Workshop) -> int:
    return await workshop.queue.job_manager.register_worker()


async def defer(workshop: Workshop, count: int = 1, **columns: object) -> None:
    """Insert jobs as anybody could."""
    values: dict[str, object] = {"task_name": "test:nothing", "queue_name": "default", **columns}
    names, places = ", ".join(values), ", ".join(f":{name}" for name in values)
    await workshop.execute(
        f"INSERT INTO procrastinate_jobs ({names}) SELECT {places} FROM generate_series(1, {count})",
        **values,
    )


async def test_the_highest_priority_comes_first_then_the_oldest(workshop: Workshop, link: Link, worker_id: int) -> None:
    for priority, lock in ((0, None), (5, "a"), (0, "b"), (5, None), (9, None)):
        await defer(workshop, priority=priority, lock=lock)
    jobs = await Claims(link, None).claim(worker_id, 10)
    assert [(job.priority, job.lock) for job in jobs] == [(9, None), (5, "a"), (5, None), (0, None), (0, "b")]


async def test_no_more_is_claimed_than_can_start(workshop: Workshop, link: Link, worker_id: int) -> None:
    await defer(workshop, 5)
    await defer(workshop, lock="a", priority=1)
    assert len(await Claims(link, None).claim(worker_id, 2)) == 2
    assert await workshop.value("SELECT count(*) FROM procrastinate_jobs WHERE status = 'doing'") == 2


async def test_only_jobs_of_the_worker_s_queues_are_claimed(workshop: Workshop, link: Link, worker_id: int) -> None:
    for queue in ("a", "b", "c"):
        await defer(workshop, queue_name=queue)
        await defer(workshop, queue_name=queue, lock=f"lock of {queue}")
    jobs = await Claims(link, ["a", "c"]).claim(worker_id, 10)
    assert sorted(job.queue for job in jobs) == ["a", "a", "c", "c"]


async def test_one_job_a_lock_is_claimed_and_the_next_after_its_end(
    workshop: Workshop, link: Link, worker_id: int
) -> None:
    await defer(workshop, 3, lock="one at a time")
    ours = Claims(link, None)
    [first] = await ours.claim(worker_id, 10)
    assert await ours.claim(worker_id, 10) == []
    ended = queries.EndedJob(first.id, first.attempts, "succeeded")
    assert await queries.end_jobs(link, worker_id=worker_id, ended=[ended]) == {first.id}
    [second] = await ours.claim(worker_id, 10)
    assert second.id > first.id


@pytest.mark.parametrize("how", ["released", "snoozed"])
async def test_an_attempt_given_back_is_not_given_back_again_by_who_has_claimed_it_since(
    workshop: Workshop, link: Link, worker_id: int, how: str
) -> None:
    @workshop.action()
    async def work() -> None: ...

    await workshop.submit("work")
    claims = Claims(link, None)
    [job] = await claims.claim(worker_id, 10)
    back = queries.EndedJob(
        job.id, job.attempts, "todo", attempts_made=0, claimed_at=job.claimed_at, is_snoozed=how == "snoozed"
    )
    assert await queries.end_jobs(link, worker_id=worker_id, ended=[back]) == {job.id}
    [again] = await claims.claim(worker_id, 10)
    assert (again.id, again.attempts, again.worker_id) == (job.id, job.attempts, job.worker_id)
    # The answer to the first was lost on the way, so it is written once more.
    assert await queries.end_jobs(link, worker_id=worker_id, ended=[back]) == set()
    assert await workshop.value("SELECT status FROM procrastinate_jobs") == "doing"


async def test_an_attempt_that_waits_is_not_parked_again_by_who_has_claimed_it_since(
    workshop: Workshop, link: Link, worker_id: int
) -> None:
    @workshop.action()
    async def work() -> None: ...

    await workshop.submit("work")
    claims = Claims(link, None)
    [job] = await claims.claim(worker_id, 10)
    parked = queries.ParkedJob(job.id, job.attempts, job.claimed_at)
    assert await queries.park_jobs(link, worker_id=worker_id, parked=[parked]) == {job.id}
    [again] = await claims.claim(worker_id, 10)
    assert (again.id, again.attempts) == (job.id, job.attempts)
    assert await queries.park_jobs(link, worker_id=worker_id, parked=[parked]) == set()
    assert await workshop.value("SELECT status FROM procrastinate_jobs") == "doing"


async def test_a_scheduled_job_does_not_block_its_lock(workshop: Workshop, link: Link, worker_id: int) -> None:
    await workshop.execute(
        "INSERT INTO procrastinate_jobs (task_name, queue_name, lock, priority, scheduled_at) "
        "VALUES ('test:nothing', 'default', 'a', 9, now() + interval '1 day')"
    )
    await defer(workshop, lock="a")
    assert len(await Claims(link, None).claim(worker_id, 10)) == 1


async def test_a_lock_is_held_over_all_queues(workshop: Workshop, link: Link, worker_id: int) -> None:
    await defer(workshop, queue_name="a", lock="shared")
    await defer(workshop, queue_name="b", lock="shared")
    assert len(await Claims(link, ["b"]).claim(worker_id, 10)) == 0, "the one in queue a comes first"
    assert len(await Claims(link, ["a"]).claim(worker_id, 10)) == 1
    assert len(await Claims(link, ["b"]).claim(worker_id, 10)) == 0


async def test_many_held_locks_do_not_hide_a_free_one(
    workshop: Workshop, link: Link, worker_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LINES_A_LOOK", 3)
    for number in range(10):
        await defer(workshop, 2, lock=f"held {number}")
    ours = Claims(link, None)
    claimed = [job for _ in range(5) for job in await ours.claim(worker_id, 10)]
    assert {job.lock for job in claimed} == {f"held {number}" for number in range(10)}
    await defer(workshop, lock="z: free")
    assert [job.lock for job in await ours.claim(worker_id, 10)] == ["z: free"]


async def test_a_lock_that_another_worker_takes_at_the_same_moment_costs_only_the_locked_jobs(
    workshop: Workshop, link: Link, worker_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await defer(workshop)
    await defer(workshop, lock="a")
    claim = queries.claim_jobs
    looks: list[int] = []

    async def lose_the_race(database: queries.Database, **arguments: object) -> object:
        looks.append(arguments["lines"])  # pyright: ignore[reportArgumentType]
        if len(looks) == 1:
            raise UniqueViolation(constraint_name="procrastinate_jobs_lock_idx_v1", queueing_lock=None)
        return await claim(database, **arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(queries, "claim_jobs", lose_the_race)
    jobs = await Claims(link, None).claim(worker_id, 10)
    assert looks == [claims.LINES_A_LOOK, 0]
    assert [job.lock for job in jobs] == [None]


async def test_the_long_look_at_locks_and_limits_is_taken_only_while_any_job_waits_for_one(
    workshop: Workshop, link: Link, worker_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = queries.claim_jobs
    looks: list[int] = []

    async def count(database: queries.Database, **arguments: Any) -> Any:
        looks.append(1)
        return await look(database, **arguments)

    monkeypatch.setattr(queries, "claim_jobs", count)
    ours = Claims(link, None)

    async def looks_of_a_claim() -> int:
        looks.clear()
        await defer(workshop)
        assert [job.lock for job in await ours.claim(worker_id, 1)] == [None]
        return len(looks)

    assert await looks_of_a_claim() == 0
    await workshop.execute("INSERT INTO queue_pauses (queue_name, paused_by) VALUES ('paused', 'a test')")
    await defer(workshop, lock="a", queue_name="paused")
    assert await looks_of_a_claim() == 1
    await workshop.execute("UPDATE procrastinate_jobs SET status = 'cancelled' WHERE lock = 'a'")
    # Only this look sees that there are none.
    assert await looks_of_a_claim() == 1
    assert await looks_of_a_claim() == 0


async def test_workers_that_claim_at_once_never_share_a_job_nor_a_lock(workshop: Workshop, engine: AsyncEngine) -> None:
    await defer(workshop, 200)
    for number in range(20):
        await defer(workshop, 3, lock=f"lock {number}", priority=number % 4)
    links = [Link(engine, timeout=20) for _ in range(6)]
    workers = [await workshop.queue.job_manager.register_worker() for _ in links]

    async def claim_all(link: Link, worker: int) -> list[int]:
        ours, found = Claims(link, None), list[int]()
        while jobs := await ours.claim(worker, 7):
            found += [job.id for job in jobs]
        return found

    claimed = [
        job
        for jobs in await asyncio.gather(
            *(claim_all(link, worker) for link, worker in zip(links, workers, strict=True))
        )
        for job in jobs
    ]
    for link in links:
        link.close()
    assert len(claimed) == len(set(claimed)) == 220
    locks = await workshop.fetch("SELECT lock FROM procrastinate_jobs WHERE status = 'doing' AND lock IS NOT NULL")
    assert len({row["lock"] for row in locks}) == len(locks) == 20


@pytest.mark.parametrize("statistics", ["fresh", "of an empty table"])
async def test_a_claim_reads_little_whatever_the_table_holds(
    workshop: Workshop, link: Link, worker_id: int, statistics: str
) -> None:
    """10,000 ended, 5,000 scheduled, 5,000 behind one held lock, 5,000 waiting: ten are claimed, a few dozen read."""
    fill = (
        "INSERT INTO procrastinate_jobs (task_name, queue_name, status, lock, scheduled_at) "
        "SELECT 'test:nothing', 'default', CAST(:status AS procrastinate_job_status), CAST(:lock AS text), "
        "CASE WHEN :later THEN now() + interval '1 day' END FROM generate_series(1, :count)"
    )
    for status, lock, later, count in (
        ("succeeded", None, False, 10_000),
        ("todo", None, True, 5_000),
        ("doing", "held", False, 1),
        ("todo", "held", False, 5_000),
        ("todo", None, False, 5_000),
    ):
        await workshop.execute(fill, status=status, lock=lock, later=later, count=count)
    if statistics == "fresh":
        await workshop.execute("ANALYZE procrastinate_jobs")
    assert len(await Claims(link, None).claim(worker_id, 10)) == 10
    assert scanned(await explained(_CLAIM_JOBS, link, worker_id), "procrastinate_jobs") < 150
    # That jobs wait behind a lock is seen at once, and so it is when they are gone.
    assert scanned(await explained(_CLAIM_READY_JOBS, link, worker_id), "procrastinate_jobs") < 5
    await workshop.execute("UPDATE procrastinate_jobs SET lock = NULL WHERE status = 'todo'")
    assert scanned(await explained(_CLAIM_READY_JOBS, link, worker_id), "procrastinate_jobs") < 50


async def explained(query: str, link: Link, worker_id: int) -> dict[str, Any]:
    arguments = {
        "worker_id": worker_id, "limit": 10, "queues": None, "lines": 100, "after_lock_queue": "", "after_lock": "",
        "after_key_queue": "", "after_key": "",
    }  # fmt: skip
    return await explain(link, query, arguments)
