"""Limits: never one more at once, nor earlier, than the code says, over all workers; and nobody else waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.engine.test_claims import defer, explained
from tests.support.plans import scanned
from tests.support.workshop import Workshop

from app.engine import claims, queries
from app.engine.adoption import register_limits
from app.engine.claims import ClaimedJob, Claims
from app.engine.limits import Limit, Rate
from app.engine.link import Link
from app.engine.queries.claim import _CLAIM_JOBS
from app.engine.retry import Retry
from app.runs.schemas import RunCreate

TASK = "test:nothing"


@pytest.fixture
async def link(engine: AsyncEngine) -> AsyncIterator[Link]:
    link = Link(engine, timeout=20)
    yield link
    link.close()


@pytest.fixture
async def worker_id(workshop: Workshop) -> int:
    return await workshop.queue.job_manager.register_worker()


async def limited(link: Link, **options: Any) -> None:
    await register_limits(link, {TASK: Limit(**options)}, tasks=[TASK])


async def claim(link: Link, worker_id: int, limit: int = 100) -> list[ClaimedJob]:
    """A claim, and another when it was the first to hear of a key."""
    ours = Claims(link, None)
    found = await ours.claim(worker_id, limit)
    return found + (await ours.claim(worker_id, limit) if ours.is_contended else [])


async def end(link: Link, worker_id: int, *jobs: ClaimedJob) -> None:
    ended = [queries.EndedJob(job.id, job.attempts, "succeeded") for job in jobs]
    assert len(await queries.end_jobs(link, worker_id=worker_id, ended=ended)) == len(jobs)


async def most_at_once(workshop: Workshop, by: str = "action") -> dict[str, int]:
    """From the ledger: how many runs were between their start and their end, at the worst moment, by action or param.

    An event is written after its statement has begun to see, and before it is seen: who starts in the place of
    another has a later event.
    """
    rows = await workshop.fetch(
        "SELECT CASE :by WHEN 'action' THEN action ELSE params ->> :by END AS key, data ->> 'state' AS state "
        "FROM run_events JOIN action_runs AS run ON run.id = run_id WHERE type = 'state' ORDER BY at, seq",
        by=by,
    )
    running, most = Counter[str](), Counter[str]()
    for row in rows:
        running[row["key"]] += {"running": 1, "queued": 0}.get(row["state"], -1)
        most[row["key"]] = max(most[row["key"]], running[row["key"]])
    return dict(most)


@contextlib.asynccontextmanager
async def workers(workshop: Workshop, count: int, **options: Any) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(workshop.working(**options))
        yield


async def test_four_workers_never_run_one_more_at_once_than_the_limit(workshop: Workshop) -> None:
    running = most = 0

    @workshop.action(limit=Limit(concurrency=3))
    async def narrow() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    @workshop.action()
    async def wide() -> None: ...

    runs = [await workshop.submit(name) for _ in range(60) for name in ("narrow", "wide")]
    async with workers(workshop, 4, concurrency=5):
        for run in runs:
            await workshop.reaches(run, "succeeded")
    assert most == 3, "all the places were taken, and no other"
    assert (await most_at_once(workshop))["narrow"] <= 3


async def test_claimers_that_race_never_hold_one_more_than_the_limit(workshop: Workshop, engine: AsyncEngine) -> None:
    links = [Link(engine, timeout=20) for _ in range(6)]
    await limited(links[0], concurrency=3)
    await defer(workshop, 100)
    ids = [await workshop.queue.job_manager.register_worker() for _ in links]
    held: list[int] = []

    async def take_all(link: Link, worker_id: int) -> int:
        ours, count = Claims(link, None), 0
        while await workshop.value("SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo'"):
            jobs = await ours.claim(worker_id, 2)
            held.append(await workshop.value("SELECT count(*) FROM procrastinate_jobs WHERE status = 'doing'"))
            if jobs:
                await end(link, worker_id, *jobs)
                count += len(jobs)
        return count

    done = await asyncio.gather(*(take_all(link, worker_id) for link, worker_id in zip(links, ids, strict=True)))
    for link in links:
        link.close()
    assert sum(done) == 100
    assert max(held) == 3


async def test_each_value_of_a_parameter_is_limited_by_itself(workshop: Workshop) -> None:
    @workshop.action(limit=Limit(concurrency=1, by="customer"))
    async def sync(customer: str) -> None:
        await asyncio.sleep(0)

    runs = [await workshop.submit("sync", customer=customer) for _ in range(8) for customer in ("ada", "bo", "c" * 500)]
    async with workers(workshop, 4, concurrency=5):
        for run in runs:
            await workshop.reaches(run, "succeeded")
    assert set((await most_at_once(workshop, by="customer")).values()) == {1}


async def test_a_job_that_procrastinate_defers_is_limited_too(workshop: Workshop, link: Link, worker_id: int) -> None:
    @workshop.queue.task(name="test:plain")
    async def plain(n: int) -> None: ...

    await register_limits(link, {"test:plain": Limit(concurrency=2)}, tasks=["test:plain"])
    await plain.batch_defer_async(*({"n": n} for n in range(5)))
    assert len(await claim(link, worker_id)) == 2


async def test_jobs_that_waited_or_ran_before_the_limit_was_known_count(
    workshop: Workshop, link: Link, worker_id: int
) -> None:
    await defer(workshop, 5)
    assert len(await claim(link, worker_id, 1)) == 1
    await limited(link, concurrency=2)
    assert len(await claim(link, worker_id)) == 1


async def test_a_limit_that_changes_or_goes_is_obeyed_from_then_on(
    workshop: Workshop, link: Link, worker_id: int
) -> None:
    await limited(link, concurrency=1)
    await defer(workshop, 9)
    assert len(await claim(link, worker_id)) == 1
    await limited(link, concurrency=3)
    assert len(await claim(link, worker_id)) == 2
    await register_limits(link, {}, tasks=["another"])
    assert await claim(link, worker_id) == [], "who does not know the task says nothing about it"
    await register_limits(link, {}, tasks=[TASK])
    assert len(await claim(link, worker_id)) == 6


async def test_within_a_limit_the_highest_priority_comes_first_then_the_oldest(
    workshop: Workshop, link: Link, worker_id: int
) -> None:
    await limited(link, concurrency=3)
    await defer(workshop)
    await end(link, worker_id, *await claim(link, worker_id))
    for priority in (0, 5, 0, 9):
        await defer(workshop, priority=priority)
    await defer(workshop, task_name="test:other", priority=7)
    assert [job.priority for job in await claim(link, worker_id)] == [9, 7, 5, 0]


async def test_limited_runs_that_wait_hold_nobody_up_and_are_not_read_again_and_again(
    workshop: Workshop, link: Link, worker_id: int
) -> None:
    await limited(link, concurrency=1)
    await defer(workshop, 5_000)
    [only] = await claim(link, worker_id, 1)
    await defer(workshop, 5, task_name="test:other")
    plan = await explained(_CLAIM_JOBS, link, worker_id)
    assert scanned(plan, "procrastinate_jobs") < 60
    assert await workshop.value("SELECT count(*) FROM procrastinate_jobs WHERE status = 'doing'") == 6
    assert await claim(link, worker_id) == []
    await end(link, worker_id, only)
    assert len(await claim(link, worker_id)) == 1


async def test_many_full_keys_do_not_hide_one_with_room(
    workshop: Workshop, link: Link, worker_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LINES_A_LOOK", 3)
    await register_limits(link, {TASK: Limit(concurrency=1, by="customer")}, tasks=[TASK])
    for number in range(10):
        await defer(workshop, 2, args=f'{{"customer": {number}}}')
    ours, found = Claims(link, None), list[ClaimedJob]()
    while (jobs := await ours.claim(worker_id, 10)) or ours.is_contended:
        found += jobs
    assert sorted(job.task_kwargs["customer"] for job in found) == list(range(10))
    await defer(workshop, args='{"customer": "z"}')
    assert [job.task_kwargs["customer"] for _ in range(2) for job in await ours.claim(worker_id, 10)] == ["z"]


async def test_a_limit_is_held_over_all_queues(workshop: Workshop, link: Link, worker_id: int) -> None:
    await limited(link, concurrency=2)
    for queue in ("a", "b", "c"):
        await defer(workshop, queue_name=queue)
    assert len(await claim(link, worker_id)) == 2


async def test_a_job_with_a_lock_and_a_limit_waits_for_both(workshop: Workshop, link: Link, worker_id: int) -> None:
    await limited(link, concurrency=2)
    await defer(workshop, 2, lock="a")
    for lock in ("b", "c"):
        await defer(workshop, lock=lock)
    first = await claim(link, worker_id)
    assert len({job.lock for job in first}) == len(first) == 2
    assert await claim(link, worker_id) == []
    await end(link, worker_id, *first)
    assert len(await claim(link, worker_id)) == 2


async def test_a_worker_that_dies_frees_its_places(workshop: Workshop, link: Link, worker_id: int) -> None:
    await limited(link, concurrency=2)
    await defer(workshop, 3)
    assert len(await claim(link, worker_id)) == 2
    await workshop.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
    [lost, *_] = await queries.list_abandoned_jobs(link, lease=2, limit=10)
    await queries.rescue_job(link, job_id=lost, lease=2, crash_cap=3, error="{}", keeps_queueing_lock=True)
    other = await workshop.queue.job_manager.register_worker()
    assert len(await claim(link, other)) == 1


async def test_a_bucket_refills_by_the_clock_of_the_database(workshop: Workshop, link: Link, worker_id: int) -> None:
    await limited(link, rate=Rate(4, seconds=3600))
    await defer(workshop, 20)
    ours = Claims(link, None)
    assert len(await claim(link, worker_id)) == 4
    assert await ours.claim(worker_id, 100) == []
    assert ours.seconds == pytest.approx(900, abs=60)
    for minutes, starts in ((14, 0), (1, 1), (30, 2), (600, 4)):
        await workshop.execute(
            "UPDATE limit_keys SET full_at = full_at - :minutes * interval '1 minute'", minutes=minutes
        )
        assert len(await claim(link, worker_id)) == starts, minutes


async def test_a_rate_without_a_burst_keeps_starts_apart(workshop: Workshop, link: Link, worker_id: int) -> None:
    await limited(link, rate=Rate(60, seconds=3600, burst=1))
    await defer(workshop, 5)
    assert len(await claim(link, worker_id)) == 1
    await workshop.execute("UPDATE limit_keys SET full_at = full_at - interval '1 minute'")
    assert len(await claim(link, worker_id)) == 1
    assert await claim(link, worker_id) == []


async def test_four_workers_never_start_one_earlier_than_the_rate(workshop: Workshop) -> None:
    @workshop.action(limit=Limit(rate=Rate(20, seconds=1, burst=2)))
    async def slow() -> None: ...

    runs = [await workshop.submit("slow") for _ in range(12)]
    async with workers(workshop, 4, concurrency=5):
        for run in runs:
            await workshop.reaches(run, "succeeded")
    rows = await workshop.fetch("SELECT extract(epoch FROM started_at) AS at FROM action_runs ORDER BY started_at")
    starts = [float(row["at"]) for row in rows]
    for first in range(len(starts)):
        for last in range(first, len(starts)):
            assert last - first + 1 <= 2 + (starts[last] - starts[first]) * 20 + 0.001
    assert starts[-1] - starts[0] < 3, "and it is used: half a second would do"


async def test_a_key_that_was_forgotten_is_made_anew(workshop: Workshop, link: Link, worker_id: int) -> None:
    await limited(link, concurrency=2)
    await defer(workshop, 5)
    assert len(await claim(link, worker_id, 1)) == 1
    await workshop.execute("UPDATE limit_keys SET full_at = now() - interval '2 hours'")
    await queries.delete_idle_limit_keys(link)
    assert await workshop.value("SELECT count(*) FROM limit_keys") == 1, "something of it runs"
    await workshop.execute("DELETE FROM limit_keys")
    assert len(await claim(link, worker_id)) == 1


async def test_a_run_under_a_limit_can_be_cancelled_and_retried(workshop: Workshop) -> None:
    attempts = 0

    @workshop.action(limit=Limit(concurrency=1), retry=Retry(base=3600, cap=3600))
    async def flaky() -> int:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ValueError("not yet")
        return attempts

    run = await workshop.request(RunCreate(action="flaky"))
    await workshop.drain()
    assert await workshop.states(run) == ["queued", "running", "retrying"]
    await workshop.drain_all()
    assert (await workshop.get(run)).result == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "a concurrency, a rate, or both"),
        ({"concurrency": 0}, "1 or more"),
        ({"rate": Rate(0, seconds=1)}, "A rate is"),
        ({"rate": Rate(1, seconds=0)}, "A rate is"),
        ({"rate": Rate(1, seconds=1, burst=0)}, "A rate is"),
        ({"concurrency": 1, "by": "nobody"}, "no parameter of it"),
    ],
)
def test_a_limit_that_means_nothing_is_refused_at_once(workshop: Workshop, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):

        @workshop.action(limit=Limit(**options))
        async def narrow(customer: str) -> None: ...
