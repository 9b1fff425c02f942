"""Storing runs and their jobs, in one statement, and how many wait."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from app.engine.queries import Database

NewRun = dict[str, Any]
StoredRun = dict[str, Any]

_ASKED = """
    SELECT nextval('procrastinate_jobs_id_seq') AS job_id, run.position, run.action, run.params, run.queue,
           run.priority, run.lock, run.queueing_lock, run.start_deadline, run.tags, run.max_attempts, run.parent_id,
           run.replay_of, run.trace_context, run.owner, run.webhook, run.actor, run.route, run.principal,
           run.idempotency_key, run.fingerprint,
           coalesce(run.schedule_at, now() + run.delay * interval '1 second') AS schedule_at,
           (SELECT runledger_limit_key_v1(run.action, limits.by_param, run.params)
              FROM limits WHERE limits.task_name = run.action) AS limit_key
      FROM jsonb_to_recordset(%(runs)s::text::jsonb) AS run(
           position integer, action text, params jsonb, queue text, priority integer, lock text, queueing_lock text,
           schedule_at timestamptz, delay float8, start_deadline timestamptz, tags text[], max_attempts integer,
           parent_id text, replay_of text, trace_context jsonb, owner text, webhook text,
           actor text, route text, principal text, idempotency_key text, fingerprint text)
"""
_INSERTED = """
keeping (by) AS MATERIALIZED (
    -- This writes all that the triggers would. It is joined to what is inserted, so that it is said before they ask.
    SELECT set_config('runledger.keeps_ledger', 'all', true)
), job AS (
    INSERT INTO procrastinate_jobs (id, task_name, args, queue_name, priority, lock, queueing_lock, scheduled_at,
                                    limit_key)
    SELECT job_id, action, params, queue, priority, lock, queueing_lock, schedule_at, limit_key FROM asked, keeping
    RETURNING id, queue_name, scheduled_at
), noted AS (
    INSERT INTO procrastinate_events (job_id, type, at)
    SELECT id, 'deferred'::procrastinate_job_event_type, now() FROM job
     UNION ALL
    SELECT id, 'scheduled', scheduled_at FROM job WHERE scheduled_at IS NOT NULL
), run AS (
    INSERT INTO action_runs (job_id, action, params, state, queue, priority, lock, tags, schedule_at, start_deadline,
                             max_attempts, parent_id, replay_of, trace_context, owner, webhook)
    SELECT job_id, action, params, runledger_run_state_v1('todo', 0, schedule_at, false), queue, priority,
           lock, coalesce(tags, '{}'), schedule_at, start_deadline, max_attempts, parent_id, replay_of, trace_context,
           owner, webhook
      FROM asked
    RETURNING id, job_id, state, schedule_at, start_deadline, created_at, last_seq
), told AS (
    INSERT INTO run_events (run_id, seq, type, data)
    SELECT id, last_seq, 'state', jsonb_build_object('state', state) FROM run
), audit AS (
    INSERT INTO audit_log (actor, route, object_id, outcome)
    SELECT asked.actor, asked.route, run.id, 202
      FROM asked JOIN run ON run.job_id = asked.job_id
     WHERE asked.actor IS NOT NULL
), rung AS (
    -- Procrastinate's two channels and its payload, and ours for those who watch; one notification each.
    SELECT pg_notify(channel, said)
      FROM (SELECT 'procrastinate_any_queue_v1' AS channel, min(id) AS job_id, count(*) FROM job
             UNION ALL
            SELECT 'procrastinate_queue_v1#' || queue_name, min(id), count(*) FROM job GROUP BY queue_name) AS bell
     CROSS JOIN LATERAL (SELECT json_build_object('type', 'job_inserted', 'job_id', job_id)::text AS said) AS said
     WHERE count > 0
     UNION ALL
    SELECT pg_notify('runledger_events', CASE WHEN count(*) > 100 THEN '*' ELSE string_agg(id, ' ') END)
      FROM run HAVING count(*) > 0
)
"""
# The rest of a run is what was asked for, and need not be sent back.
_INSERT_RUNS = f"""
WITH asked AS MATERIALIZED ({_ASKED}), {_INSERTED}
SELECT run.*, (SELECT count(*) FROM rung) FROM run ORDER BY job_id
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
SELECT run.*, asked.position, (SELECT count(*) FROM rung)
  FROM run JOIN asked USING (job_id) ORDER BY job_id
"""


async def insert_runs(database: Database, runs: Sequence[NewRun]) -> list[StoredRun | None]:
    """Insert runs and their jobs, in one statement; NOTIFY rings for the workers at commit.

    Args:
        runs: action, params, queue, priority and max_attempts; optional: lock, queueing_lock, schedule_at or delay
            (seconds), start_deadline, tags, parent_id, replay_of, trace_context, owner, webhook; for the audit log
            actor and route; and principal, idempotency_key and fingerprint, all three or none.

    Returns:
        The runs, in the order given; `None` for one whose idempotency key is taken.
    """
    if not any("idempotency_key" in run or run.get("tags") for run in runs):
        rows = await database.execute_query_all_async(_INSERT_RUNS, runs=json.dumps(runs, default=str))
        return [_stored(run, row) for run, row in zip(runs, rows, strict=True)]
    placed = [{**run, "position": position} for position, run in enumerate(runs)]
    rows = await database.execute_query_all_async(_INSERT_MARKED_RUNS, runs=json.dumps(placed, default=str))
    stored = {row["position"]: row for row in rows}
    return [_stored(run, stored[n]) if n in stored else None for n, run in enumerate(runs)]


_AS_ASKED = dict.fromkeys(("lock", "tags", "parent_id", "replay_of", "trace_context", "owner", "webhook"))
_BEFORE_ITS_FIRST_ATTEMPT = {
    "attempt": 0, "progress": None, "result": None, "error": None, "worker_id": None, "started_at": None,
    "finished_at": None,
}  # fmt: skip


def _stored(run: NewRun, row: dict[str, Any]) -> StoredRun:
    stored = _AS_ASKED | run | _BEFORE_ITS_FIRST_ATTEMPT | row
    return stored | {"tags": stored["tags"] or [], "read_at": row["created_at"]}


async def stop_keeping(database: Database) -> None:
    """Within a transaction that goes on: what changes jobs from now on has not told the ledger."""
    await database.execute_query_all_async("SELECT set_config('runledger.keeps_ledger', '', true)")


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
