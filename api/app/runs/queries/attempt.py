"""What a running attempt writes. Each write names the holder it expects."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True)
class Holder:
    """Who performs a run: its fencing token. A write under an older token touches no row.

    An attempt that was snoozed is made again under the same number: `snoozes` tells the two apart.
    """

    run_id: str
    worker_id: int
    attempt: int
    snoozes: int


async def get_steps(connection: AsyncConnection, run_id: str) -> dict[str, Any]:
    """The results of the steps that a run has finished, by name."""
    statement = text("SELECT name, result FROM run_steps WHERE run_id = :run_id")
    return {row.name: row.result for row in await connection.execute(statement, {"run_id": run_id})}


async def append_event(connection: AsyncConnection, holder: Holder, *, type_: str, data: dict[str, Any]) -> bool:
    """Write an event of a running attempt; one of type `progress` is also the run's progress.

    Returns:
        Whether the holder still holds the run.
    """
    statement = text("""
        WITH held AS (
            UPDATE action_runs
               SET last_seq = last_seq + 1,
                   progress = CASE WHEN :type = 'progress' THEN CAST(:data AS jsonb) ELSE progress END
             WHERE id = :run_id AND worker_id = :worker_id AND attempt = :attempt AND snoozes = :snoozes
               AND state = 'running'
            RETURNING id, last_seq
        )
        INSERT INTO run_events (run_id, seq, type, data)
        SELECT id, last_seq, :type, CAST(:data AS jsonb) FROM held
        RETURNING seq
    """)
    return (await connection.execute(statement, _held(holder, type=type_, data=json.dumps(data)))).first() is not None


async def insert_step(connection: AsyncConnection, holder: Holder, *, name: str, result: Any) -> bool:
    """Store what a step returned, and the event that says so.

    Returns:
        Whether the holder still holds the run.
    """
    statement = text("""
        WITH held AS (
            UPDATE action_runs SET last_seq = last_seq + 1, steps = steps + 1
             WHERE id = :run_id AND worker_id = :worker_id AND attempt = :attempt AND snoozes = :snoozes
               AND state = 'running'
            RETURNING id, last_seq, attempt
        ), step AS (
            INSERT INTO run_steps (run_id, name, attempt, result)
            SELECT id, :name, attempt, CAST(:result AS jsonb) FROM held
        )
        INSERT INTO run_events (run_id, seq, type, data)
        SELECT id, last_seq, 'step', jsonb_build_object('name', CAST(:name AS text), 'attempt', attempt) FROM held
        RETURNING seq
    """)
    return (
        await connection.execute(statement, _held(holder, name=name, result=json.dumps(result)))
    ).first() is not None


def _held(holder: Holder, **arguments: Any) -> dict[str, Any]:
    return {**asdict(holder), **arguments}
