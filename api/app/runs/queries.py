"""Every statement about runs, one function each. Writes of a running attempt name the holder they expect."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.engine.queries import Database
from app.runs.models import ActionRun, RunEvent

RunRow = Row[Any]
EventRow = Row[Any]

_RUN = (ActionRun.__table__, func.now().label("read_at"))


NewRun = dict[str, Any]
StoredRun = dict[str, Any]

_ASKED = """
    SELECT nextval('procrastinate_jobs_id_seq') AS job_id, run.position, run.action, run.params, run.queue,
           run.priority, run.lock, run.queueing_lock, run.start_deadline, run.tags, run.max_attempts, run.parent_id,
           run.replay_of, run.trace_context, run.owner, run.webhook, run.actor, run.route, run.principal,
           run.idempotency_key, run.fingerprint,
           coalesce(run.schedule_at, now() + run.delay * interval '1 second') AS schedule_at
      FROM jsonb_to_recordset(%(runs)s::text::jsonb) AS run(
           position integer, action text, params jsonb, queue text, priority integer, lock text, queueing_lock text,
           schedule_at timestamptz, delay float8, start_deadline timestamptz, tags text[], max_attempts integer,
           parent_id text, replay_of text, trace_context jsonb, owner text, webhook text,
           actor text, route text, principal text, idempotency_key text, fingerprint text)
"""
_INSERTED = """
job AS (
    INSERT INTO procrastinate_jobs (id, task_name, args, queue_name, priority, lock, queueing_lock, scheduled_at)
    SELECT job_id, action, params, queue, priority, lock, queueing_lock, schedule_at FROM asked
), run AS (
    INSERT INTO action_runs (job_id, action, params, state, queue, priority, lock, tags, schedule_at, start_deadline,
                             max_attempts, parent_id, replay_of, trace_context, owner, webhook)
    SELECT job_id, action, params, runledger_run_state_v1('todo', 0, schedule_at, false), queue, priority,
           lock, coalesce(tags, '{}'), schedule_at, start_deadline, max_attempts, parent_id, replay_of, trace_context,
           owner, webhook
      FROM asked
    RETURNING *
), told AS (
    INSERT INTO run_events (run_id, seq, type, data)
    SELECT id, last_seq, 'state', jsonb_build_object('state', state) FROM run
), audit AS (
    INSERT INTO audit_log (actor, route, object_id, outcome)
    SELECT asked.actor, asked.route, run.id, 202
      FROM asked JOIN run ON run.job_id = asked.job_id
     WHERE asked.actor IS NOT NULL
)
"""
# The trigger on the jobs is told that the ledger is kept.
_INSERT_RUNS = f"""
WITH asked AS MATERIALIZED ({_ASKED}), {_INSERTED}
SELECT run.*, now() AS read_at, set_config('runledger.keeps_ledger', 'on', true) FROM run ORDER BY job_id
"""
_INSERT_RUNS_BRIEFLY = f"""
WITH asked AS MATERIALIZED ({_ASKED}), {_INSERTED}
SELECT run.id, set_config('runledger.keeps_ledger', 'on', true) FROM run ORDER BY job_id
"""
# Whose key is taken is not stored. Keys in their order, and before the jobs: nobody waits for whom he keeps waiting.
_INSERT_MARKED_RUNS = f"""
WITH sent AS MATERIALIZED (
    SELECT asked.*, set_config('lock_timeout', '250ms', true) FROM ({_ASKED}) AS asked
), keyed AS (
    INSERT INTO idempotency_keys (principal, key, fingerprint, job_id)
    SELECT principal, idempotency_key, fingerprint, job_id FROM sent
     WHERE idempotency_key IS NOT NULL ORDER BY principal, idempotency_key, position
        ON CONFLICT DO NOTHING
    RETURNING job_id
), asked AS MATERIALIZED (
    SELECT * FROM sent WHERE idempotency_key IS NULL OR job_id IN (SELECT job_id FROM keyed) ORDER BY position
), {_INSERTED}, tag AS (
    INSERT INTO run_tags (tag, job_id) SELECT DISTINCT unnest(tags), job_id FROM asked
)
SELECT run.*, now() AS read_at, asked.position, set_config('runledger.keeps_ledger', 'on', true)
  FROM run JOIN asked USING (job_id) ORDER BY job_id
"""


_LIST_NEW_EVENTS = """
SELECT event.run_id, event.seq, event.at, event.type, event.data
  FROM unnest(%(run_ids)s::text[], %(seqs)s::int[]) AS watched (run_id, seen)
  CROSS JOIN LATERAL (
    SELECT * FROM run_events WHERE run_id = watched.run_id AND seq > watched.seen
     ORDER BY seq LIMIT %(limit)s::int) AS event
"""
_LIST_RUNS_BY_ID = """
SELECT *, now() AS read_at FROM action_runs WHERE id = ANY (%(run_ids)s::text[]) ORDER BY job_id
"""


@dataclass(frozen=True)
class Holder:
    """Who performs a run: its fencing token. A write under an older token touches no row."""

    run_id: str
    worker_id: int
    attempt: int


async def insert_runs(database: Database, runs: Sequence[NewRun], *, briefly: bool = False) -> list[StoredRun | None]:
    """Insert runs and their jobs, in one statement; NOTIFY rings for the workers at commit.

    Args:
        runs: action, params, queue, priority and max_attempts; optional: lock, queueing_lock, schedule_at or delay
            (seconds), start_deadline, tags, parent_id, replay_of, trace_context, owner, webhook; for the audit log
            actor and route; and principal, idempotency_key and fingerprint, all three or none.
        briefly: their `id` is enough.

    Returns:
        The runs, in the order given; `None` for one whose idempotency key is taken.
    """
    if not any("idempotency_key" in run or run.get("tags") for run in runs):
        statement = _INSERT_RUNS_BRIEFLY if briefly else _INSERT_RUNS
        return [*await database.execute_query_all_async(statement, runs=json.dumps(runs, default=str))]
    placed = [{**run, "position": position} for position, run in enumerate(runs)]
    rows = await database.execute_query_all_async(_INSERT_MARKED_RUNS, runs=json.dumps(placed, default=str))
    stored = {row["position"]: row for row in rows}
    return [stored.get(position) for position in range(len(runs))]


async def count_waiting_runs(database: Database) -> dict[str, int]:
    """How many runs of each owner wait, for their time or for a worker."""
    rows = await database.execute_query_all_async(
        """
        SELECT run.owner, count(*) AS waiting
          FROM procrastinate_jobs AS job
          JOIN action_runs AS run ON run.job_id = job.id
         WHERE job.status = 'todo' AND run.owner IS NOT NULL
         GROUP BY run.owner
        """
    )
    return {row["owner"]: row["waiting"] for row in rows}


async def get_run(connection: AsyncConnection, run_id: str, *, owner: str | None = None) -> RunRow | None:
    """One run by its id, if it is the owner's."""
    statement = select(*_RUN).where(ActionRun.id == run_id)
    if owner is not None:
        statement = statement.where(ActionRun.owner == owner)
    return (await connection.execute(statement)).first()


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
             WHERE id = :run_id AND worker_id = :worker_id AND attempt = :attempt AND state = 'running'
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
             WHERE id = :run_id AND worker_id = :worker_id AND attempt = :attempt AND state = 'running'
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


async def list_events(connection: AsyncConnection, run_id: str, *, after: int, limit: int) -> list[EventRow]:
    """Events of a run whose `seq` is greater than `after`, in order."""
    statement = (
        select(RunEvent.__table__)
        .where(RunEvent.run_id == run_id, RunEvent.seq > after)
        .order_by(RunEvent.seq)
        .limit(limit)
    )
    return list((await connection.execute(statement)).all())


async def list_new_events(database: Database, seen: dict[str, int], *, limit: int) -> list[dict[str, Any]]:
    """The events of several runs, each run's after the `seq` that was seen, in order; up to `limit` of each."""
    return await database.execute_query_all_async(
        _LIST_NEW_EVENTS, run_ids=list(seen), seqs=list(seen.values()), limit=limit
    )


async def list_runs_by_id(database: Database, run_ids: Collection[str]) -> list[StoredRun]:
    """The runs of these ids, in the order of acceptance."""
    return await database.execute_query_all_async(_LIST_RUNS_BY_ID, run_ids=list(run_ids))


async def requeue_ended_job(connection: AsyncConnection, *, job_id: int) -> bool:
    """Put the job of a run that failed or was cancelled back into its queue.

    Returns:
        Whether there was such a job.
    """
    statement = text("""
        UPDATE procrastinate_jobs SET status = 'todo', scheduled_at = NULL, abort_requested = false
         WHERE id = :job_id AND status IN ('failed', 'cancelled', 'aborted')
        RETURNING id
    """)
    return (await connection.execute(statement, {"job_id": job_id})).first() is not None


_DELETE_ENDED_RUNS = """
WITH page AS MATERIALIZED (
    -- In the order of acceptance, by its index; an index on the time of the end would cost every run that ends.
    SELECT id, job_id, parent_id, created_at, finished_at FROM action_runs
     WHERE job_id > :after ORDER BY job_id LIMIT :limit
), old AS MATERIALIZED (
    -- What a run has waited for stays as long as that run has not ended.
    SELECT id, job_id FROM page
     WHERE finished_at < now() - CAST(:older_than AS interval)
       AND NOT EXISTS (SELECT FROM action_runs AS parent
                        WHERE parent.id = page.parent_id AND parent.finished_at IS NULL)
), known AS MATERIALIZED (
    SELECT id FROM procrastinate_jobs WHERE id = ANY (ARRAY(SELECT job_id FROM old))
), job AS MATERIALIZED (
    -- The job first, then its run: the order of everybody who changes a run. Who is being retried is left alone.
    SELECT id FROM procrastinate_jobs
     WHERE id = ANY (ARRAY(SELECT job_id FROM old)) AND status NOT IN ('todo', 'doing')
       FOR UPDATE SKIP LOCKED
), run AS MATERIALIZED (
    SELECT id, job_id, tags FROM action_runs
     WHERE id = ANY (ARRAY(SELECT id FROM old
                            WHERE job_id = ANY (ARRAY(SELECT id FROM job))
                               OR NOT job_id = ANY (ARRAY(SELECT id FROM known))))
       AND finished_at < now() - CAST(:older_than AS interval)
       FOR UPDATE SKIP LOCKED
), events_deleted AS (
    DELETE FROM run_events WHERE run_id = ANY (ARRAY(SELECT id FROM run))
), jobs_deleted AS (
    DELETE FROM procrastinate_jobs WHERE id = ANY (ARRAY(SELECT job_id FROM run))
), tags_deleted AS (
    DELETE FROM run_tags USING (SELECT unnest(tags) AS tag, job_id FROM run) AS tagged
     WHERE run_tags.tag = tagged.tag AND run_tags.job_id = tagged.job_id
), children_deleted AS (
    DELETE FROM run_children WHERE child_id = ANY (ARRAY(SELECT id FROM run))
), signals_deleted AS (
    DELETE FROM run_signals WHERE run_id = ANY (ARRAY(SELECT id FROM run))
), unique_deleted AS (
    DELETE FROM unique_runs WHERE job_id = ANY (ARRAY(SELECT job_id FROM run))
), runs_deleted AS (
    DELETE FROM action_runs WHERE id = ANY (ARRAY(SELECT id FROM run))
)
SELECT (SELECT count(*) FROM run) AS deleted,
       -- No run has ended before it was accepted: where all are young, all that follow are.
       (SELECT max(job_id) FROM page HAVING min(created_at) < now() - CAST(:older_than AS interval)) AS last
"""


async def delete_ended_runs(
    connection: AsyncConnection, *, after: int, older_than: timedelta, limit: int
) -> tuple[int, int | None]:
    """Look at the oldest runs, and delete those that ended long ago, with their events, steps and jobs.

    Args:
        after: only at runs accepted after the one whose job this is.
        limit: at how many.

    Returns:
        How many were deleted, and the `after` to go on with; `None` if no older run can follow.
    """
    arguments = {"after": after, "older_than": older_than, "limit": limit}
    row = (await connection.execute(text(_DELETE_ENDED_RUNS), arguments)).one()
    return row.deleted, row.last


def _held(holder: Holder, **arguments: Any) -> dict[str, Any]:
    return {"run_id": holder.run_id, "worker_id": holder.worker_id, "attempt": holder.attempt, **arguments}
