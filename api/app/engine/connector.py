"""Procrastinate over SQLAlchemy's `AsyncEngine` and asyncpg: the connector that neither project has."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

import asyncpg
from procrastinate import exceptions, manager, types
from procrastinate.connector import BaseAsyncConnector, BaseConnector, Notify
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from typing_extensions import override

from app.engine.listener import Listener

_PLACEHOLDER = re.compile(r"%\((?P<name>\w+)\)s(?P<joined>\s*\|\|)?|%%")
_QUEUEING_LOCK = re.compile(r"Key \(queueing_lock\)=\((?P<lock>.*)\) already exists", re.DOTALL)


class SQLAlchemyAsyncConnector(BaseAsyncConnector):
    """A complete Procrastinate connector over an `AsyncEngine` that uses asyncpg.

    Every call ends within `timeout` seconds, with `procrastinate.exceptions.ConnectorException` if the database
    does not answer. `Task.configure(connection=…)` takes an `AsyncSession` or an `AsyncConnection`: the job is then
    part of the caller's transaction, and its worker is told when that commits.
    """

    def __init__(self, engine: AsyncEngine, *, timeout: float = 10) -> None:
        if engine.dialect.driver != "asyncpg":
            raise ValueError(f"The engine must use asyncpg (postgresql+asyncpg://…), not {engine.dialect.driver}.")
        self.engine = engine
        self.timeout = timeout

    async def open_async(self, pool: AsyncEngine | None = None) -> None:
        """Nothing is connected until the first call. Another engine may take the place of the one given."""
        self.engine = pool or self.engine

    async def close_async(self) -> None:
        """Close the pooled connections. The engine can be used again."""
        await self.engine.dispose()

    def open(self, pool: AsyncEngine | None = None) -> None:
        self.engine = pool or self.engine

    def close(self) -> None:
        """Nothing stays open between synchronous calls."""

    def get_sync_connector(self) -> BaseConnector:
        """For synchronous code, in any thread, with or without an open app."""
        return _OneLoopACall(self.engine, timeout=self.timeout)

    def with_own_pool(self) -> SQLAlchemyAsyncConnector:
        """Another connector to the same database, whose connections nobody else can use up."""
        shared = self.engine.sync_engine
        return SQLAlchemyAsyncConnector(
            AsyncEngine(Engine(shared.pool.recreate(), shared.dialect, shared.url)), timeout=self.timeout
        )

    async def execute_query_async(self, query: str, **arguments: Any) -> None:
        if arguments:
            await self._fetch(query, arguments)
        else:
            await self._run_script(query)

    async def execute_query_one_async(self, query: str, **arguments: Any) -> dict[str, Any]:
        return _first(await self._fetch(query, arguments))

    async def execute_query_all_async(self, query: str, **arguments: Any) -> list[dict[str, Any]]:
        return await self._fetch(query, arguments)

    async def execute_query_one_async_with_connection(
        self, connection: AsyncSession | AsyncConnection, query: str, **arguments: Any
    ) -> dict[str, Any]:
        return _first(await self._fetch_within(connection, query, arguments))

    async def execute_query_all_async_with_connection(
        self, connection: AsyncSession | AsyncConnection, query: str, **arguments: Any
    ) -> list[dict[str, Any]]:
        return await self._fetch_within(connection, query, arguments)

    async def listen_notify(self, on_notification: Notify, channels: Iterable[str]) -> None:
        await self.listen(on_notification, channels)

    async def listen(
        self,
        on_notification: Notify,
        channels: Iterable[str],
        on_listening: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Listen for ever, on a connection of its own that is replaced when it breaks.

        Args:
            on_listening: called each time that listening begins: what was said before was not heard, so look once.
        """
        await Listener(self.engine, list(channels), timeout=self.timeout).run(on_notification, on_listening)

    async def _fetch(self, query: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        with translated_errors():
            # One statement is its own transaction: BEGIN and COMMIT would be two more round trips.
            async with asyncio.timeout(self.timeout), self._autocommit().connect() as connection:
                return await self._send(connection, query, arguments)

    async def _fetch_within(
        self, connection: AsyncSession | AsyncConnection, query: str, arguments: dict[str, Any]
    ) -> list[dict[str, Any]]:
        with translated_errors():
            async with asyncio.timeout(self.timeout):
                return await self._send(await _connection_of(connection), query, arguments)

    async def _send(self, connection: AsyncConnection, query: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        statement = translate(query)
        result = await connection.exec_driver_sql(statement.sql, tuple(self._values(statement, arguments)))
        return [dict(row) for row in result.mappings()] if result.returns_rows else []

    async def _run_script(self, script: str) -> None:
        with translated_errors():
            async with asyncio.timeout(self.timeout), self._autocommit().connect() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver is not None
                await driver.execute(translate(script).sql)

    def _autocommit(self) -> AsyncEngine:
        return self.engine.execution_options(isolation_level="AUTOCOMMIT")

    def _values(self, statement: Statement, arguments: dict[str, Any]) -> Iterator[Any]:
        for name in statement.parameters:
            value = self._encode(arguments[name])
            yield str(value) if name in statement.texts else value

    def _encode(self, value: Any) -> Any:
        match value:
            case types.JobToDefer():
                return tuple(self._encode(field) for field in value)
            case dict():
                return (self.json_dumps or json.dumps)(value)
            case list() | tuple() | set():
                return [self._encode(item) for item in value]
            case _:
                return value


class _OneLoopACall(SQLAlchemyAsyncConnector):
    """Each call has an event loop of its own, so it has connections of its own, which end with it."""

    @override
    async def _fetch(self, query: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        async with self._own_pool() as connector:
            return await connector._fetch(query, arguments)

    @override
    async def _run_script(self, script: str) -> None:
        async with self._own_pool() as connector:
            await connector._run_script(script)

    @contextlib.asynccontextmanager
    async def _own_pool(self) -> AsyncGenerator[SQLAlchemyAsyncConnector]:
        connector = self.with_own_pool()
        try:
            yield connector
        finally:
            await connector.close_async()


class Statement(NamedTuple):
    """A query in asyncpg's terms: `$1` refers to the argument named by `parameters[0]`."""

    sql: str
    parameters: tuple[str, ...]
    texts: frozenset[str]
    """Parameters that the query joins to text: psycopg writes any value as text there, asyncpg wants a string."""


@functools.cache
def translate(query: str) -> Statement:
    """Turn psycopg's `%(name)s` and `%%` into asyncpg's `$n` and `%`."""
    numbers: dict[str, int] = {}
    texts: set[str] = set()

    def number(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return "%"
        if match["joined"]:
            texts.add(name)
        return f"${numbers.setdefault(name, len(numbers) + 1)}{match['joined'] or ''}"

    sql = _PLACEHOLDER.sub(number, query)
    return Statement(sql, tuple(numbers), frozenset(texts))


_DRIVER_ERRORS = (
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # Of a connection whose session the server has just ended, before the driver sees it closed.
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


@contextlib.contextmanager
def translated_errors() -> Generator[None]:
    """Raise what Procrastinate expects: `UniqueViolation` with its constraint, else `ConnectorException`."""
    try:
        yield
    except _DRIVER_ERRORS as error:
        violation = _unique_violation(error)
        if violation is None:
            raise exceptions.ConnectorException from error
        raise _translated(violation) from error


def is_refused_value(error: BaseException | None) -> bool:
    """Whether the database answered, and what it said is that a value cannot be stored."""
    while error is not None and not isinstance(error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError):
        error = error.__cause__
    return error is not None


def is_lock_timeout(error: BaseException | None) -> bool:
    """Whether the statement waited for another transaction for longer than it wanted to."""
    while error is not None and not isinstance(error, asyncpg.LockNotAvailableError):
        error = error.__cause__
    return error is not None


def _unique_violation(error: BaseException | None) -> asyncpg.UniqueViolationError | None:
    while error is not None and not isinstance(error, asyncpg.UniqueViolationError):
        error = error.__cause__
    return error


def _translated(violation: asyncpg.UniqueViolationError) -> exceptions.UniqueViolation:
    # asyncpg sets what the server said as attributes, which its types do not know.
    said: dict[str, Any] = vars(violation)
    constraint = said.get("constraint_name")
    match = _QUEUEING_LOCK.search(said.get("detail") or "") if constraint == manager.QUEUEING_LOCK_CONSTRAINT else None
    return exceptions.UniqueViolation(constraint_name=constraint, queueing_lock=match["lock"] if match else None)


async def _connection_of(connection: object) -> AsyncConnection:
    match connection:
        case AsyncSession():
            return await connection.connection()
        case AsyncConnection():
            return connection
        case _:
            raise TypeError(
                f"configure(connection=…) takes an AsyncSession or an AsyncConnection, not {type(connection).__name__}."
            )


def _first(rows: list[dict[str, Any]]) -> dict[str, Any]:
    if not rows:
        raise exceptions.NoResult
    return rows[0]
