"""More requests than connections: an answer at once, what is accepted stays accepted, and watchers wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import httpx2
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.serving import open_api
from tests.support.workshop import Workshop

from app.routers.services import Services
from app.runs.events import follow


@contextlib.asynccontextmanager
async def serving(workshop: Workshop, **settings: object) -> AsyncGenerator[tuple[httpx2.AsyncClient, Services]]:
    async with open_api(workshop, workshop.settings.model_copy(update=settings)) as app:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client, app.state.services


@contextlib.asynccontextmanager
async def all_connections_taken(engine: AsyncEngine) -> AsyncGenerator[None]:
    async with contextlib.AsyncExitStack() as taken:
        for _ in range(20):
            await taken.enter_async_context(engine.connect())
        yield


@pytest.fixture
async def impatient(workshop: Workshop) -> AsyncIterator[tuple[httpx2.AsyncClient, Services]]:
    @workshop.action()
    async def echo(message: str) -> str:
        return message

    async with serving(workshop, pool_timeout_seconds=0.01) as served:
        await served[1].lookout.is_listening.wait()
        yield served


async def test_when_every_connection_is_in_use_the_answer_is_503(
    impatient: tuple[httpx2.AsyncClient, Services],
) -> None:
    client, services = impatient
    async with all_connections_taken(services.engine):
        for path in ("/runs", "/runs/run_20200101T000000Z_00000000", "/readyz"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["type"]) == (503, "/problems/database-unavailable"), path
            assert answer.headers["retry-after"] == "1"
            assert "in use" in answer.json()["detail"]
        assert (await client.get("/livez")).status_code == 200
    assert (await client.get("/runs")).status_code == 200


async def test_when_every_connection_is_in_use_runs_are_accepted_and_performed(
    impatient: tuple[httpx2.AsyncClient, Services], workshop: Workshop
) -> None:
    client, services = impatient
    async with all_connections_taken(services.engine):
        answer = await client.post("/runs", json={"action": "echo", "params": {"message": "x"}})
        assert answer.status_code == 202
        await workshop.drain()
        assert (await workshop.get(answer.json()["id"])).state == "succeeded"


async def test_a_watcher_waits_until_there_is_a_connection(
    impatient: tuple[httpx2.AsyncClient, Services], workshop: Workshop
) -> None:
    _, services = impatient
    run = await workshop.submit("echo", message="x")
    events = follow(services.engine, services.lookout, run, after=0, stopping=asyncio.Event())
    async with all_connections_taken(services.engine):
        first = asyncio.create_task(anext(events))
        done, _ = await asyncio.wait([first], timeout=0.1)  # ten times as long as a request waits
        assert not done
    assert [told.seq for told in await first] == [1]  # pyright: ignore[reportGeneralTypeIssues]
    await events.aclose()


async def test_a_request_waits_for_two_seconds_and_a_worker_for_as_long_as_for_the_database(workshop: Workshop) -> None:
    async with serving(workshop) as (_, services):
        assert services.engine.sync_engine.pool.timeout() == 2  # pyright: ignore[reportAttributeAccessIssue]
    assert workshop.engine.sync_engine.pool.timeout() == 5  # pyright: ignore[reportAttributeAccessIssue]
