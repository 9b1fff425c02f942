"""The audit log: who wrote what, and what came of it. It only grows; retention has a door of its own.

Submissions are written down by the statement that stores the runs (`runs.queries.insert_runs`), everything else right
after it was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncEngine

from app.access import queries
from app.outbound.postgres.database import autocommit
from app.runs.values import storable_text

PRUNE_BATCH = 5_000
LONGEST = 255


class AuditEntryRead(BaseModel):
    """One write, and who did it."""

    id: int
    at: AwareDatetime
    actor: str = Field(description="Such as `local`, `secret`, `key:<id>`, `jwt:<sub>` or `cli`.")
    route: str = Field(description="Such as `POST /runs/{run_id}/cancel`.")
    object_id: str | None = Field(description="The run, key or whatever else it was about.")
    outcome: int = Field(description="HTTP's number for what came of it.")


class AuditPage(BaseModel):
    """Entries, newest first."""

    items: list[AuditEntryRead]
    next: str | None = Field(description="`cursor` of the next page.")


async def record(engine: AsyncEngine, *, actor: str, route: str, object_id: str | None, outcome: int) -> None:
    """Write down what was done, or was refused."""
    async with autocommit(engine).connect() as connection:
        await queries.insert_audit_entry(
            connection,
            actor=actor,
            route=route,
            object_id=object_id and storable_text(object_id)[:LONGEST],
            outcome=outcome,
        )


async def record_all(engine: AsyncEngine, *, actor: str, route: str, outcomes: Sequence[int]) -> None:
    """Write down what came of many things that were asked for together."""
    async with autocommit(engine).connect() as connection:
        await queries.insert_audit_entries(connection, actor=actor, route=route, outcomes=outcomes)


async def list_page(
    engine: AsyncEngine, *, limit: int, before: int | None, actor: str | None, object_id: str | None
) -> AuditPage:
    """A page of entries, newest first, older than the one whose id is `before`."""
    async with autocommit(engine).connect() as connection:
        rows = await queries.list_audit_entries(
            connection, limit=limit + 1, before=before, actor=actor, object_id=object_id
        )
    page = [AuditEntryRead.model_validate(row, from_attributes=True) for row in rows[:limit]]
    return AuditPage(items=page, next=str(page[-1].id) if len(rows) > limit else None)


async def prune(engine: AsyncEngine, *, older_than: timedelta) -> int:
    """Delete old entries, the oldest first, in batches, each its own transaction.

    Returns:
        How many were deleted.
    """
    deleted, batch = 0, PRUNE_BATCH
    while batch == PRUNE_BATCH:
        async with autocommit(engine).connect() as connection:
            batch = await queries.delete_audit_entries(connection, older_than=older_than, limit=PRUNE_BATCH)
        deleted += batch
    return deleted
