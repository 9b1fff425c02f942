"""The engine: one pool of asyncpg connections per process, under SQLAlchemy."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.config import Settings
from app.embedded import EmbeddedPostgres, cluster_folder

APPLICATION_NAME = "runledger"


def make_engine(settings: Settings, *, pool_size: int = 10, pool_timeout: float | None = None) -> AsyncEngine:
    """The engine of one process. Nothing is connected, and nothing is started, until its first use.

    Args:
        pool_size: connections that are kept; as many again may be opened under load.
        pool_timeout: seconds to wait for a connection while all are in use; not given: as long as for the database.
    """
    if settings.url is not None:
        return _create(settings.url, settings, pool_size, pool_timeout)
    embedded = EmbeddedPostgres(cluster_folder(settings.data_dir))
    engine = _create(embedded.url, settings, pool_size, pool_timeout)

    @event.listens_for(engine.sync_engine, "do_connect")
    def _start_on_first_connection(*_: Any) -> None:  # pyright: ignore[reportUnusedFunction]
        if not started:
            embedded.ensure_running()
            started.append(True)

    started: list[bool] = []
    return engine


def _create(url: Any, settings: Settings, pool_size: int, pool_timeout: float | None) -> AsyncEngine:
    engine = create_async_engine(
        url,
        # Parameters are what callers sent: they belong into no message and no log.
        hide_parameters=True,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=pool_timeout or settings.db_timeout_seconds,
        pool_recycle=1800,
        connect_args={
            "timeout": settings.db_timeout_seconds,
            "command_timeout": settings.db_timeout_seconds,
            "server_settings": {
                "application_name": APPLICATION_NAME,
                "timezone": "UTC",
                # Whatever the role's default is: SKIP LOCKED needs to see what others have just committed.
                "default_transaction_isolation": "read committed",
                # A session that dies in the middle of a transaction must not hold locks for ever.
                "idle_in_transaction_session_timeout": "30s",
            },
        },
    )
    # As asked for above. SQLAlchemy asks the first connection, which those of another pool may overtake.
    engine.sync_engine.dialect.default_isolation_level = "READ COMMITTED"
    event.listen(engine.sync_engine, "checkout", _replace_closed)
    return engine


def _replace_closed(connection: Any, *_: Any) -> None:
    # What the server has ended while it lay in the pool is known without asking it, and costs nobody a statement.
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def autocommit(engine: AsyncEngine) -> AsyncEngine:
    """The same pool, for single statements: each is its own transaction, without two more round trips."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")
