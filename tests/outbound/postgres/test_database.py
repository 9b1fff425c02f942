"""Connections: whoever opens the first one."""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from app.config import Settings
from app.engine.connector import SQLAlchemyAsyncConnector
from app.outbound.postgres.database import autocommit, make_engine


async def test_many_who_connect_first_at_the_same_moment_can_let_go_again(settings: Settings) -> None:
    engine = make_engine(settings)
    own = SQLAlchemyAsyncConnector(engine, timeout=5).with_own_pool()

    async def look() -> int:
        async with autocommit(own.engine).connect() as connection:
            return await connection.scalar(text("SELECT 1"))

    assert await asyncio.gather(*(look() for _ in range(20))) == [1] * 20
    await own.close_async()
    await engine.dispose()
