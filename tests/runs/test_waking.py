"""No wake-up is lost, in whatever order a run begins to wait, its job is parked, and what it waits for comes.

Workers are stepped: each of these happens when the test says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from sqlalchemy import text
from tests.support.eventually import eventually
from tests.support.workshop import Workshop

from app.domain.journal import Outcome
from app.engine import queries
from app.engine.claims import ClaimedJob, Claims
from app.engine.link import Link
from app.engine.queries import EndedJob, ParkedJob
from app.errors import RunLost, RunWaits
from app.runs.children import Children
from app.runs.queries import Holder
from app.runs.schemas import RunRead


@dataclass
class Stage:
    """A run that a worker holds, and two children of it."""

    workshop: Workshop
    link: Link
    worker_id: int
    run: RunRead
    job: ClaimedJob
    children: Children
    ids: list[str]

    async def wait(self) -> list[Outcome]:
        return await self.children.gather(self.ids, "continue")

    async def begin_to_wait(self) -> None:
        with pytest.raises(RunWaits):
            await self.wait()

    async def park(self) -> set[int]:
        parked = ParkedJob(self.job.id, self.job.attempts, self.job.claimed_at)
        return await queries.park_jobs(self.link, worker_id=self.worker_id, parked=[parked])

    async def end_children(self) -> None:
        jobs = await Claims(self.link, None).claim(self.worker_id, 10)
        assert [job.task_name for job in jobs] == ["child", "child"]
        ended = [EndedJob(job.id, job.attempts, "succeeded", result="1") for job in jobs]
        assert len(await queries.end_jobs(self.link, worker_id=self.worker_id, ended=ended)) == 2

    async def state(self) -> str:
        return (await self.workshop.get(self.run)).state

    async def somebody_waits(self) -> bool:
        """Whether somebody waits for the lock of what a run waits for."""
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return bool(await self.workshop.value(waiting))


END = "UPDATE procrastinate_jobs SET status = 'succeeded' WHERE task_name = 'child'"


@pytest.fixture
async def stage(workshop: Workshop) -> AsyncIterator[Stage]:
    @workshop.action()
    async def parent() -> None: ...

    @workshop.action()
    async def child() -> None: ...

    link = Link(workshop.engine, timeout=20)
    worker_id = await workshop.queue.job_manager.register_worker()
    run = await workshop.submit("parent")
    [job] = await Claims(link, None).claim(worker_id, 1)
    holder = Holder(run.id, worker_id, 1, snoozes=0)
    children = Children(workshop.queue.connector, workshop.queue.job_manager, holder, workshop.action.ask)
    ids = await children.spawn([("child", {}), ("child", {})])
    yield Stage(workshop, link, worker_id, run, job, children, ids)
    link.close()


async def test_an_end_after_the_parking_wakes(stage: Stage) -> None:
    await stage.begin_to_wait()
    assert await stage.park() == {stage.job.id}
    assert await stage.state() == "scheduled"
    await stage.end_children()
    assert await stage.state() == "queued"


async def test_an_end_between_the_look_and_the_parking_is_not_lost(stage: Stage) -> None:
    await stage.begin_to_wait()
    await stage.end_children()
    assert await stage.state() == "running"
    await stage.park()
    assert await stage.state() == "queued"


async def test_an_end_before_the_look_is_seen(stage: Stage) -> None:
    await stage.end_children()
    assert [outcome.state for outcome in await stage.wait()] == ["succeeded", "succeeded"]


async def test_an_end_that_is_not_committed_at_the_look_is_waited_for(stage: Stage) -> None:
    async with stage.workshop.engine.connect() as ending:
        await ending.execute(text(END))
        looking = asyncio.create_task(stage.wait())
        await eventually(stage.somebody_waits)
        await ending.commit()
        assert [outcome.state for outcome in await looking] == ["succeeded", "succeeded"]


async def test_an_end_that_is_not_committed_at_the_parking_is_waited_for(stage: Stage) -> None:
    await stage.begin_to_wait()
    async with stage.workshop.engine.connect() as ending:
        await ending.execute(text(END))
        parking = asyncio.create_task(stage.park())
        await eventually(stage.somebody_waits)
        await ending.commit()
        await parking
    assert await stage.state() == "queued"


async def test_the_last_two_children_end_at_once(stage: Stage) -> None:
    await stage.begin_to_wait()
    await stage.park()
    one = END + " AND id = (SELECT {}(job_id) FROM run_children)"
    async with stage.workshop.engine.connect() as first, stage.workshop.engine.connect() as second:
        await first.execute(text(one.format("min")))
        ending = asyncio.create_task(second.execute(text(one.format("max"))))
        await eventually(stage.somebody_waits)
        assert await stage.state() == "scheduled"
        await first.commit()
        await ending
        await second.commit()
    assert await stage.state() == "queued"


async def test_an_end_that_is_rolled_back_wakes_nobody(stage: Stage) -> None:
    await stage.begin_to_wait()
    await stage.park()
    async with stage.workshop.engine.connect() as ending:
        await ending.execute(text(END))
        await ending.rollback()
    assert await stage.state() == "scheduled"
    await stage.end_children()
    assert await stage.state() == "queued"


async def test_a_run_that_is_to_stop_is_not_parked(stage: Stage) -> None:
    await stage.begin_to_wait()
    await stage.workshop.execute("UPDATE procrastinate_jobs SET abort_requested = true WHERE id = :id", id=stage.job.id)
    await stage.park()
    assert await stage.state() == "cancelled"


async def test_a_zombie_neither_spawns_nor_waits_nor_parks(stage: Stage) -> None:
    await stage.workshop.execute(
        "UPDATE procrastinate_jobs SET status = 'todo', attempts = attempts + 1 WHERE id = :id", id=stage.job.id
    )
    with pytest.raises(RunLost):
        await stage.children.spawn([("child", {})])
    with pytest.raises(RunLost):
        await stage.wait()
    assert await stage.park() == set()
    assert await stage.workshop.value("SELECT count(*) FROM run_children") == 2
    assert await stage.workshop.value("SELECT count(*) FROM run_waits") == 0
