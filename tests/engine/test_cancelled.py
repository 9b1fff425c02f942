"""Whatever opens a connection and is cancelled meanwhile leaves none open."""

from __future__ import annotations

import asyncio
import gc
import itertools
import warnings
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.cancelled import CancelledAt

from app.engine.connector import SQLAlchemyAsyncConnector
from app.engine.link import Link
from app.engine.listener import Listener


async def ask_by_a_link(engine: AsyncEngine) -> None:
    link = Link(engine, timeout=5)
    try:
        await link.execute_query_all_async("SELECT 1 AS one")
    finally:
        link.close()


async def ask_by_the_connector(engine: AsyncEngine) -> None:
    connector = SQLAlchemyAsyncConnector(engine, timeout=5).with_own_pool()
    try:
        await connector.execute_query_all_async("SELECT 1 AS one")
    finally:
        await connector.close_async()


async def listen(engine: AsyncEngine) -> None:
    listening = asyncio.current_task()
    assert listening is not None

    async def stop() -> None:
        listening.cancel()

    await Listener(engine, ["news"], timeout=5).run(_ignore, stop)


async def _ignore(**_: object) -> None: ...


@pytest.mark.parametrize("opening", [ask_by_a_link, ask_by_the_connector, listen])
async def test_what_is_cancelled_at_any_moment_leaves_no_connection_open(
    engine: AsyncEngine, opening: Callable[[AsyncEngine], Awaitable[None]]
) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for moment in itertools.count(1):
            if await waits_when_cancelled(opening(engine), moment) < moment:
                break
            await engine.dispose()
        gc.collect()
    assert moment > 10
    assert [str(each.message) for each in warned if issubclass(each.category, ResourceWarning)] == []


async def waits_when_cancelled(call: Awaitable[None], moment: int) -> int:
    cancelled = CancelledAt(call, moment)

    async def perform() -> None:
        await cancelled

    await asyncio.gather(asyncio.create_task(perform()), return_exceptions=True)
    return cancelled.waits
