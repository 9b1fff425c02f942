"""Every statement about children, signals, and what runs wait for.

Who looks at what is there and notes that a run waits for the rest does both under that run's lock (`lock_wait`), as
does whoever brings it: the trigger on ends, or the sender of a signal.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.runs.queries import Holder, StoredRun


async def lock_wait(connection: AsyncConnection, run_id: str) -> None:
    """Keep everybody else, until this transaction ends, from changing what a run waits for."""
    await connection.execute(text("SELECT runledger_lock_wait_v1(:run_id)"), {"run_id": run_id})


async def lock_held_run(connection: AsyncConnection, holder: Holder) -> Row[Any] | None:
    """The run, if the holder still holds it: from now on until this transaction ends.

    Returns:
        Its job_id, owner and trace_context.
    """
    statement = text("""
        SELECT job_id, owner, trace_context FROM action_runs
         WHERE id = :run_id AND worker_id = :worker_id AND attempt = :attempt AND snoozes = :snoozes
           AND state = 'running'
           FOR NO KEY UPDATE
    """)
    return (await connection.execute(statement, asdict(holder))).first()


async def list_children(connection: AsyncConnection, parent_id: str, *, keys: Sequence[str]) -> dict[str, Row[Any]]:
    """Those children that were spawned under these keys, by key: each one's id, action and params."""
    statement = text("""
        SELECT child.key, run.id, run.action, run.params
          FROM run_children AS child JOIN action_runs AS run ON run.id = child.child_id
         WHERE child.parent_id = :parent_id AND child.key = ANY (:keys)
    """)
    rows = await connection.execute(statement, {"parent_id": parent_id, "keys": list(keys)})
    return {row.key: row for row in rows}


async def insert_children(connection: AsyncConnection, parent_id: str, children: dict[str, StoredRun]) -> None:
    """Note under which keys runs were spawned."""
    statement = text("""
        INSERT INTO run_children (parent_id, key, child_id, job_id)
        SELECT :parent_id, * FROM unnest(CAST(:keys AS text[]), CAST(:ids AS text[]), CAST(:job_ids AS bigint[]))
    """)
    arguments = {
        "parent_id": parent_id,
        "keys": list(children),
        "ids": [run["id"] for run in children.values()],
        "job_ids": [run["job_id"] for run in children.values()],
    }
    await connection.execute(statement, arguments)


async def list_outcomes(connection: AsyncConnection, parent_id: str, *, ids: Collection[str]) -> dict[str, Row[Any]]:
    """Where these children of a run are, by id: each one's job_id, action, state, result and error."""
    statement = text("""
        SELECT run.id, run.job_id, run.action, run.state, run.result, run.error
          FROM run_children AS child JOIN action_runs AS run ON run.id = child.child_id
         WHERE child.parent_id = :parent_id AND child.child_id = ANY (:ids)
    """)
    rows = await connection.execute(statement, {"parent_id": parent_id, "ids": list(ids)})
    return {row.id: row for row in rows}


async def list_orphans(connection: AsyncConnection, parent_id: str, *, asker_id: str) -> list[int]:
    """The jobs of those children of a cancelled run that wait or run.

    None, if the run that asks belongs to somebody else than the cancelled one.
    """
    statement = text("""
        SELECT job.id
          FROM action_runs AS parent
          JOIN action_runs AS asker
            ON asker.id = :asker_id AND coalesce(asker.owner = parent.owner, asker.owner IS NULL)
          JOIN run_children AS child ON child.parent_id = parent.id
          JOIN procrastinate_jobs AS job ON job.id = child.job_id AND job.status IN ('todo', 'doing')
         WHERE parent.id = :parent_id AND parent.state = 'cancelled'
         ORDER BY job.id
    """)
    return list((await connection.scalars(statement, {"parent_id": parent_id, "asker_id": asker_id})).all())


async def await_children(
    connection: AsyncConnection, run_id: str, *, job_id: int, ids: Collection[str], policy: str
) -> None:
    """Note that a run waits for these children."""
    statement = text("""
        WITH awaited AS (
            UPDATE run_children SET is_awaited = NOT is_awaited
             WHERE parent_id = :run_id AND is_awaited <> (child_id = ANY (:ids))
        )
        INSERT INTO run_waits (run_id, job_id, policy) VALUES (:run_id, :job_id, :policy)
            ON CONFLICT (run_id) DO UPDATE SET policy = excluded.policy, signal = NULL, until = NULL
    """)
    arguments = {"run_id": run_id, "job_id": job_id, "ids": list(ids), "policy": policy}
    await connection.execute(statement, arguments)


async def await_signal(
    connection: AsyncConnection, run_id: str, *, job_id: int, name: str, timeout: float | None
) -> bool:
    """Note that a run waits for a signal, for `timeout` seconds from the first time that this is noted.

    Returns:
        Whether it has waited for long enough.
    """
    statement = text("""
        INSERT INTO run_waits AS wait (run_id, job_id, signal, until)
        VALUES (:run_id, :job_id, :name, now() + CAST(:timeout AS float8) * interval '1 second')
            ON CONFLICT (run_id) DO UPDATE
           SET policy = NULL, signal = excluded.signal,
               until = CASE WHEN wait.signal = excluded.signal THEN wait.until ELSE excluded.until END
        RETURNING coalesce(until <= now(), false)
    """)
    arguments = {"run_id": run_id, "job_id": job_id, "name": name, "timeout": timeout}
    return (await connection.execute(statement, arguments)).scalar_one()


async def get_signal(connection: AsyncConnection, run_id: str, name: str) -> Row[Any] | None:
    """The signal that a run was sent under that name: data and created_at."""
    statement = text("SELECT data, created_at FROM run_signals WHERE run_id = :run_id AND name = :name")
    return (await connection.execute(statement, {"run_id": run_id, "name": name})).first()


async def insert_signal(connection: AsyncConnection, run_id: str, *, name: str, data: Any) -> None:
    """Store a signal, unless there is one of that name."""
    statement = text("""
        INSERT INTO run_signals (run_id, name, data) VALUES (:run_id, :name, CAST(:data AS jsonb))
            ON CONFLICT DO NOTHING
    """)
    await connection.execute(statement, {"run_id": run_id, "name": name, "data": json.dumps(data)})


async def wake_for_signal(connection: AsyncConnection, run_id: str, name: str) -> None:
    """Let a run that waits for this signal go on."""
    statement = text("""
        WITH over AS (DELETE FROM run_waits WHERE run_id = :run_id AND signal = :name RETURNING job_id)
        SELECT runledger_wake_v1(array_agg(job_id)) FROM over
    """)
    await connection.execute(statement, {"run_id": run_id, "name": name})
