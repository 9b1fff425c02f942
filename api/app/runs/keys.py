"""Every statement about the keys of submissions: those that make one safe to send again, and those of unique runs."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.runs.models import ActionRun, IdempotencyKey
from app.runs.queries import RunRow

Key = tuple[str, str]
"""A principal and the idempotency key it sent."""


async def try_lock_key(connection: AsyncConnection, key: Key) -> bool:
    """Keep everybody else who asks for this key from having it until this transaction ends.

    Returns:
        Whether nobody else has it.
    """
    statement = text("SELECT pg_try_advisory_xact_lock(hashtextextended('runledger.key:' || :key, 0))")
    return (await connection.execute(statement, {"key": " ".join(key)})).scalar_one()


async def list_originals(connection: AsyncConnection, keys: list[Key]) -> dict[Key, RunRow]:
    """The runs that were submitted under these keys, each with the fingerprint of what was `sent`."""
    statement = (
        select(
            ActionRun.__table__,
            func.now().label("read_at"),
            IdempotencyKey.principal,
            IdempotencyKey.key,
            IdempotencyKey.fingerprint.label("sent"),
        )
        .join(IdempotencyKey, IdempotencyKey.job_id == ActionRun.job_id)
        .where(tuple_(IdempotencyKey.principal, IdempotencyKey.key).in_(keys))
    )
    return {(row.principal, row.key): row for row in await connection.execute(statement)}


async def delete_idempotency_keys(connection: AsyncConnection, *, older_than: timedelta, limit: int) -> int:
    """Forget some of the keys that are older.

    Returns:
        How many were forgotten.
    """
    statement = text("""
        DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM idempotency_keys WHERE created_at < now() - CAST(:older_than AS interval)
             ORDER BY created_at LIMIT :limit))
    """)
    return (await connection.execute(statement, {"older_than": older_than, "limit": limit})).rowcount


async def lock_unique_run(connection: AsyncConnection, *, owner: str, action: str, key: str) -> int | None:
    """Keep everybody else who submits under a unique key waiting until this transaction ends.

    Returns:
        The job of the key's newest run.
    """
    statement = text("""
        INSERT INTO unique_runs AS newest (owner, action, key) VALUES (:owner, :action, :key)
            ON CONFLICT (owner, action, key) DO UPDATE SET job_id = newest.job_id
        RETURNING job_id
    """)
    return (await connection.execute(statement, {"owner": owner, "action": action, "key": key})).scalar_one()


async def set_unique_run(connection: AsyncConnection, *, owner: str, action: str, key: str, job_id: int) -> None:
    """Make a run the newest of a unique key whose lock is held."""
    statement = text("UPDATE unique_runs SET job_id = :job_id WHERE owner = :owner AND action = :action AND key = :key")
    await connection.execute(statement, {"owner": owner, "action": action, "key": key, "job_id": job_id})


async def get_unended_run(connection: AsyncConnection, *, job_id: int) -> RunRow | None:
    """The run of a job that waits or runs, as it is at this moment."""
    statement = text("""
        SELECT run.*, now() AS read_at, job.status = 'todo' AS waits
          FROM procrastinate_jobs AS job JOIN action_runs AS run ON run.job_id = job.id
         WHERE job.id = :job_id AND job.status IN ('todo', 'doing')
    """)
    return (await connection.execute(statement, {"job_id": job_id})).first()


async def cancel_waiting_job(connection: AsyncConnection, *, job_id: int) -> bool:
    """Cancel a job, and with it its run, if it waits.

    Returns:
        Whether it did.
    """
    statement = text("UPDATE procrastinate_jobs SET status = 'cancelled' WHERE id = :job_id AND status = 'todo'")
    return (await connection.execute(statement, {"job_id": job_id})).rowcount == 1


async def get_queued_run(connection: AsyncConnection, *, queueing_lock: str, owner: str | None) -> str | None:
    """The run that waits under a queueing lock, if it is the owner's; `None`: anybody's."""
    statement = text("""
        SELECT run.id FROM procrastinate_jobs AS job JOIN action_runs AS run ON run.job_id = job.id
         WHERE job.status = 'todo' AND job.queueing_lock = :queueing_lock
           AND (CAST(:owner AS text) IS NULL OR run.owner = :owner)
    """)
    arguments = {"queueing_lock": queueing_lock, "owner": owner}
    return (await connection.execute(statement, arguments)).scalar_one_or_none()


async def set_error(connection: AsyncConnection, *, job_id: int, error: dict[str, Any]) -> None:
    """Say of a run that this transaction has ended why it did."""
    statement = text("UPDATE action_runs SET error = CAST(:error AS jsonb) WHERE job_id = :job_id")
    await connection.execute(statement, {"job_id": job_id, "error": json.dumps(error)})
