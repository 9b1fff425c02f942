"""The link: a connection of a worker's own, sound again by the next call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from procrastinate.exceptions import ConnectorException
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.eventually import eventually
from tests.support.workshop import Workshop

from app.engine.link import Link


@pytest.fixture
async def link(engine: AsyncEngine) -> AsyncIterator[Link]:
    link = Link(engine, timeout=5)
    yield link
    link.close()


async def backend(link: Link) -> int:
    return (await link.execute_query_all_async("SELECT pg_backend_pid() AS pid"))[0]["pid"]


async def test_calls_go_over_one_connection(link: Link) -> None:
    assert await backend(link) == await backend(link)


async def test_a_session_that_the_server_has_ended_costs_no_call(link: Link, workshop: Workshop) -> None:
    before = await backend(link)
    await workshop.execute("SELECT pg_terminate_backend(:pid)", pid=before)
    driver = link._driver
    assert driver is not None

    async def closed() -> bool:
        return driver.is_closed()

    await eventually(closed)
    assert await backend(link) != before


async def test_a_driver_that_has_lost_its_way_is_replaced(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await backend(link)

    async def fetch(*_: object) -> None:
        raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")

    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.Connection, "fetch", fetch)
        with pytest.raises(ConnectorException):
            await backend(link)
    assert await backend(link) != before


async def test_after_an_answer_that_was_not_awaited_there_is_a_new_connection(link: Link) -> None:
    before = await backend(link)
    asking = asyncio.create_task(link.execute_query_all_async("SELECT pg_sleep(60)"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await backend(link) != before


async def test_a_statement_that_is_refused_keeps_the_connection(link: Link) -> None:
    before = await backend(link)
    with pytest.raises(ConnectorException):
        await link.execute_query_all_async("SELECT 1 / 0")
    assert await backend(link) == before


async def test_no_call_lasts_longer_than_its_deadline(engine: AsyncEngine) -> None:
    link = Link(engine, timeout=0.05)
    with pytest.raises(ConnectorException):
        await link.execute_query_all_async("SELECT pg_sleep(600)")
    link.close()


async def test_all_connections_of_the_pool_being_taken_does_not_hold_up_a_link(
    engine: AsyncEngine, workshop: Workshop
) -> None:
    own = Link(workshop.queue.connector.with_own_pool().engine, timeout=5)
    taken = [await engine.connect() for _ in range(20)]
    assert await backend(own)
    for connection in taken:
        await connection.close()
    own.close()


async def test_a_pooled_session_that_the_server_has_ended_costs_no_call(
    engine: AsyncEngine, workshop: Workshop
) -> None:
    async with engine.connect() as connection:
        before = await connection.scalar(text("SELECT pg_backend_pid()"))
        driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    other = workshop.queue.connector.with_own_pool().engine
    async with other.connect() as connection:
        await connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": before})
    await other.dispose()

    async def closed() -> bool:
        return driver.is_closed()

    await eventually(closed)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT pg_backend_pid()")) != before
