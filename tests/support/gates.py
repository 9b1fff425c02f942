"""A gate in the database: a worker that wants to write something waits there, until its test has killed it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.eventually import eventually

from app.outbound.postgres.database import autocommit

_GATE = """
CREATE OR REPLACE FUNCTION pass_the_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('gate'));
    RETURN NEW;
END $$
"""
_WAITING = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"

BEFORE_THE_END = "UPDATE ON procrastinate_jobs FOR EACH ROW WHEN (NEW.status = 'succeeded')"
"""Where a run has succeeded, and that is not stored yet."""


def before_step(name: str) -> str:
    """Where a step is done, and not stored yet."""
    return f"INSERT ON run_steps FOR EACH ROW WHEN (NEW.name = '{name}')"


@contextlib.asynccontextmanager
async def gate(engine: AsyncEngine, place: str) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Shut a gate for the length of the block, which gets what waits until somebody stands before it.

    Whoever stands there at the end is dead: nothing that he wanted to write is written.
    """
    async with engine.begin() as connection:
        await connection.exec_driver_sql(_GATE)
        await connection.exec_driver_sql(
            f"CREATE OR REPLACE TRIGGER gate BEFORE {place} EXECUTE FUNCTION pass_the_gate()"
        )

    async def somebody() -> int | None:
        async with engine.connect() as connection:
            return await connection.scalar(text(f"SELECT count(*) {_WAITING}"))

    # No transaction that stays open: the server would end it.
    async with autocommit(engine).connect() as keeper:
        await keeper.execute(text("SELECT pg_advisory_lock(hashtext('gate'))"))
        yield lambda: eventually(somebody, within=60)
        await keeper.execute(text(f"SELECT pg_terminate_backend(pid) {_WAITING}"))
        await keeper.execute(text("SELECT pg_advisory_unlock_all()"))
