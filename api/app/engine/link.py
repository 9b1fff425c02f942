"""A connection of a worker's own, for the statements that it lives by."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.engine.connector import translate, translated_errors

# The engine's statements read by index whatever the statistics of the moment say: just after a burst these are wrong,
# and a plan that reads a table through costs more with every job that ever was.
PLANNING = """
SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_mergejoin = off; SET enable_sort = off; SET jit = off
"""


class Link:
    """One connection, opened when first needed and replaced when it breaks; its statements stay prepared.

    No pool lies between: what actions do with the pool cannot hold up a claim, an ending or a heartbeat. Every call
    ends within `timeout` seconds, with `procrastinate.exceptions.ConnectorException` if the database does not answer.
    """

    def __init__(self, engine: AsyncEngine, *, timeout: float) -> None:
        self._engine = engine
        self._timeout = timeout
        self._connection: AsyncConnection | None = None
        self._driver: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def execute_query_all_async(self, query: str, **arguments: Any) -> list[dict[str, Any]]:
        """The rows that a statement in Procrastinate's notation (`%(name)s`) returns."""
        statement = translate(query)
        values = [arguments[name] for name in statement.parameters]
        with translated_errors():
            # One deadline for the turn, the connection and the answer.
            async with asyncio.timeout(self._timeout), self._turn:
                try:
                    driver = await self._sound_driver()
                    return [dict(row) for row in await driver.fetch(statement.sql, *values)]
                except BaseException as error:
                    self._drop_unless_sound(error)
                    raise

    def close(self) -> None:
        """Let the connection go."""
        if self._driver is not None:
            self._driver.terminate()
            self._driver = self._connection = None

    async def _sound_driver(self) -> asyncpg.Connection:
        if self._driver is not None and self._driver.is_closed():
            # The server said so while nobody asked: it was restarted, or ended this session.
            self.close()
        return self._driver or await self._connect()

    def _drop_unless_sound(self, error: BaseException) -> None:
        # After an answer of the server the connection can be used again, except when that server is no longer the one
        # to write to. After anything else nobody knows what comes next on it.
        if not isinstance(error, asyncpg.PostgresError) or isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            self.close()

    async def _connect(self) -> asyncpg.Connection:
        connection = await self._engine.connect()
        driver: asyncpg.Connection = await connection.run_sync(_take)
        try:
            await driver.execute(PLANNING)
        except BaseException:
            driver.terminate()
            raise
        self._connection, self._driver = connection, driver
        return driver


def _take(connection: Connection) -> asyncpg.Connection:
    """The driver's connection, which the pool forgets."""
    driver = connection.connection.driver_connection
    assert driver is not None
    connection.detach()
    return driver


class Links:
    """The connections of one worker. None waits for another: a sweep that waits for a lock delays no heartbeat."""

    def __init__(self, engine: AsyncEngine, *, timeout: float) -> None:
        self.claims = Link(engine, timeout=timeout)
        self.endings = Link(engine, timeout=timeout)
        self.heartbeat = Link(engine, timeout=timeout)
        self.care = Link(engine, timeout=timeout)

    def close(self) -> None:
        for link in (self.claims, self.endings, self.heartbeat, self.care):
            link.close()
