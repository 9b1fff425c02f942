"""What is freed wakes who waits for it, in whichever worker and queue: a place under a limit, and a lock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.engine.test_claims import defer
from tests.engine.test_limited_actions import TASK, claim, end, limited, link, worker_id
from tests.support.eventually import eventually
from tests.support.workshop import Workshop

from app.engine.adoption import register_limits
from app.engine.limits import Limit, Rate
from app.engine.link import Link
from app.engine.rescue import Rescue
from app.runs.schemas import RunCreate

__all__ = ["link", "worker_id"]  # the fixtures

pytestmark = pytest.mark.bell("what is freed rings")


@contextlib.asynccontextmanager
async def listening(workshop: Workshop, *queues: str) -> AsyncIterator[None]:
    """A worker of one slot for each of these queues, none of which ever looks if nothing rings."""
    async with contextlib.AsyncExitStack() as stack:
        for queue in queues:
            await stack.enter_async_context(
                workshop.working(queues=[queue], concurrency=1, fetch_job_polling_interval=600)
            )
        listeners = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"

        async def all_listen() -> bool:
            return await workshop.value(listeners) == len(queues)

        await eventually(all_listen)
        yield


async def test_a_place_that_is_freed_is_taken_by_another_worker_at_once(workshop: Workshop) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    @workshop.action(limit=Limit(concurrency=1))
    async def narrow(first: bool) -> None:
        if first:
            started.set()
            await go_on.wait()

    async with listening(workshop, "a", "b"):
        first = await workshop.request(RunCreate(action="narrow", params={"first": True}, queue="a"))
        await started.wait()
        second = await workshop.request(RunCreate(action="narrow", params={"first": False}, queue="b"))
        await looked(workshop)
        assert (await workshop.get(second)).state == "queued"
        go_on.set()
        await workshop.reaches(first, "succeeded")
        await workshop.reaches(second, "succeeded")


async def test_a_lock_that_is_freed_is_taken_by_another_worker_at_once(workshop: Workshop) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    @workshop.action(lock="the only one")
    async def locked(first: bool) -> None:
        if first:
            started.set()
            await go_on.wait()

    async with listening(workshop, "a", "b"):
        first = await workshop.request(RunCreate(action="locked", params={"first": True}, queue="a"))
        await started.wait()
        second = await workshop.request(RunCreate(action="locked", params={"first": False}, queue="b"))
        await looked(workshop)
        assert (await workshop.get(second)).state == "queued"
        go_on.set()
        await workshop.reaches(first, "succeeded")
        await workshop.reaches(second, "succeeded")


async def looked(workshop: Workshop) -> None:
    """Return when the worker of the queue `b` has looked after what was submitted last."""

    @workshop.action()
    async def mark() -> None: ...

    run = await workshop.request(RunCreate(action="mark", queue="b"))
    await workshop.reaches(run, "succeeded")


@contextlib.asynccontextmanager
async def bells(engine: AsyncEngine, *queues: str) -> AsyncIterator[Bells]:
    """What rings in these queues while the block lasts."""
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        heard = Bells(driver)
        for queue in queues:
            await driver.add_listener(f"procrastinate_queue_v1#{queue}", heard.note)
        yield heard
        for queue in queues:
            await driver.remove_listener(f"procrastinate_queue_v1#{queue}", heard.note)


class Bells:
    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._rung: list[str] = []
        self._silence = asyncio.Event()

    def note(self, _driver: object, _pid: int, channel: str, payload: str) -> None:
        if payload == "silence":
            self._silence.set()
        else:
            self._rung.append(channel.partition("#")[2])

    async def rung(self) -> list[str]:
        """The queues that it has rung in since this was asked last, as often as it has rung."""
        self._silence.clear()
        await self._driver.execute("SELECT pg_notify('procrastinate_queue_v1#a', 'silence')")
        await asyncio.wait_for(self._silence.wait(), 20)
        rung, self._rung = self._rung, []
        return sorted(rung)


async def test_a_freed_place_rings_once_in_each_queue_where_its_key_waits_and_nowhere_else(
    workshop: Workshop, engine: AsyncEngine, link: Link, worker_id: int
) -> None:
    await register_limits(
        link, {TASK: Limit(concurrency=2), "test:other": Limit(concurrency=1)}, tasks=[TASK, "test:other"]
    )
    await defer(workshop, 2, queue_name="a")
    held = await claim(link, worker_id)
    for queue in ("a", "b"):
        await defer(workshop, 3, queue_name=queue)
    await defer(workshop, queue_name="c", task_name="test:other")
    async with bells(engine, "a", "b", "c") as heard:
        await end(link, worker_id, *held)
        assert await heard.rung() == ["a", "b"]


@pytest.mark.parametrize("options", [{"rate": Rate(2, seconds=600)}, {"concurrency": 2}, None])
async def test_an_end_that_nobody_waits_for_rings_nowhere(
    workshop: Workshop, engine: AsyncEngine, link: Link, worker_id: int, options: dict[str, Any] | None
) -> None:
    if options is not None:
        await limited(link, **options)
    await defer(workshop, 2, queue_name="a")
    held = await claim(link, worker_id)
    if options is None or "rate" in options:
        await defer(workshop, queue_name="a")
    async with bells(engine, "a") as heard:
        await end(link, worker_id, *held)
        assert await heard.rung() == []


async def test_a_lock_that_is_freed_rings_where_the_first_that_waits_for_it_is(
    workshop: Workshop, engine: AsyncEngine, link: Link, worker_id: int
) -> None:
    await defer(workshop, queue_name="a", lock="one")
    held = await claim(link, worker_id)
    await defer(workshop, 2, queue_name="b", lock="one")
    await defer(workshop, queue_name="c", lock="another")
    async with bells(engine, "a", "b", "c") as heard:
        await end(link, worker_id, *held)
        assert await heard.rung() == ["a", "b"]


async def test_a_worker_that_is_lost_frees_its_places_for_all(
    workshop: Workshop, engine: AsyncEngine, link: Link, worker_id: int
) -> None:
    await limited(link, concurrency=1)
    await defer(workshop, queue_name="a")
    await claim(link, worker_id)
    await defer(workshop, queue_name="b")
    await workshop.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
    async with bells(engine, "a", "b") as heard:
        await Rescue(link, lease=2, crash_cap=3).sweep()
        assert await heard.rung() == ["a", "b"], "in its own, too: it goes back there"
