"""Few triggers, and none for those who write everything themselves: what a statement waits for is mostly triggers.

Whoever begins one job on an idle system waits for what a statement sets up rather than for what it does: each trigger
costs as much as a row, each generated column and each condition of a trigger is planned anew by every statement. So a
table has one trigger for each way to change it; the claim and the submission, which set `runledger.keeps_ledger` to
'all', have none; and what was generated is written by the trigger that sees the change.
"""

from alembic import op

from app.engine.schema import run_sql

revision = "app_0021"
down_revision = "app_0020"
branch_labels = None
depends_on = None

# As v3, and of a limited task with its key, which had a trigger of its own. Where no task is limited, that looks at one
# empty table.
JOBS_INSERTED = """
CREATE FUNCTION runledger_jobs_inserted_v4() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('runledger.keeps_ledger', true) IS DISTINCT FROM 'on' THEN
    INSERT INTO action_runs (job_id, action, params, state, queue, priority, lock, schedule_at)
    SELECT id, task_name, runledger_params_v1(args),
           runledger_run_state_v1(status, attempts, scheduled_at, abort_requested),
           queue_name, priority, lock, runledger_time_v1(scheduled_at)
      FROM inserted
     WHERE position(':' IN task_name) = 0
        ON CONFLICT (job_id) DO NOTHING;

    INSERT INTO run_events (run_id, seq, type, data)
    SELECT run.id, 1, 'state', jsonb_build_object('state', run.state)
      FROM inserted AS job
      JOIN action_runs AS run ON run.job_id = job.id;
    END IF;

    INSERT INTO procrastinate_events (job_id, type, at)
    SELECT id, 'deferred'::procrastinate_job_event_type, now() FROM inserted WHERE status = 'todo'
     UNION ALL
    SELECT id, 'scheduled', scheduled_at FROM inserted WHERE status = 'todo' AND scheduled_at IS NOT NULL;

    PERFORM runledger_ring_v1(array_agg(DISTINCT queue_name), 'job_inserted', min(id))
       FROM inserted WHERE status = 'todo';

    IF EXISTS (SELECT FROM limits) AND EXISTS (SELECT FROM inserted JOIN limits USING (task_name)) THEN
        UPDATE procrastinate_jobs AS job
           SET limit_key = runledger_limit_key_v1(job.task_name, limits.by_param, job.args)
          FROM limits
         WHERE job.id = ANY (ARRAY(SELECT id FROM inserted)) AND limits.task_name = job.task_name;
    END IF;
    RETURN NULL;
END $$;
"""

# As v2; then what was the trigger on freed jobs; and a run that is retried by hand, over HTTP, by the `procrastinate`
# command or by SQL, waits as patiently as a new one, which was a trigger on the runs.
JOBS_UPDATED = """
CREATE FUNCTION runledger_jobs_updated_v3() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    asked record;
BEGIN
    INSERT INTO procrastinate_events (job_id, type, at)
    SELECT job.id, told.type, told.at
      FROM updated AS job
      JOIN before USING (id)
      CROSS JOIN LATERAL (
        SELECT CASE
                   WHEN before.status = 'todo' AND job.status = 'doing' THEN 'started'
                   WHEN before.status = 'doing' AND job.status = 'todo' THEN 'deferred_for_retry'
                   WHEN before.status = 'doing' AND job.status IN ('failed', 'succeeded', 'aborted')
                       THEN job.status::text
                   WHEN before.status = 'todo' AND job.status IN ('cancelled', 'failed', 'succeeded') THEN 'cancelled'
                   WHEN before.status = 'failed' AND job.status = 'todo' THEN 'retried'
               END::procrastinate_job_event_type AS type, now() AS at
         WHERE before.status <> job.status
         UNION ALL
        SELECT 'scheduled', job.scheduled_at
         WHERE job.status = 'todo' AND job.scheduled_at IS DISTINCT FROM before.scheduled_at
         UNION ALL
        SELECT 'abort_requested', now() WHERE job.abort_requested AND NOT before.abort_requested
      ) AS told
     WHERE told.type IS NOT NULL AND told.at IS NOT NULL;

    IF current_setting('runledger.keeps_ledger', true) IS DISTINCT FROM 'on' THEN
    WITH said AS (
        SELECT job.id AS job_id, job.status, job.attempts, job.queue_name, job.priority, job.lock,
               runledger_time_v1(job.scheduled_at) AS scheduled_at,
               job.worker_id, job.abort_requested,
               runledger_run_state_v1(job.status, job.attempts, job.scheduled_at, job.abort_requested) AS state
          FROM updated AS job
    ), due AS (
        SELECT run.id, said.state, said.queue_name, said.priority, said.lock, said.worker_id,
               -- A job whose time has come waits without a time; its run goes on to tell which that was.
               CASE WHEN said.scheduled_at IS NULL AND run.schedule_at <= now() THEN run.schedule_at
                    ELSE said.scheduled_at END AS scheduled_at,
               said.state IN ('succeeded', 'failed', 'cancelled') AS is_final,
               CASE said.state
                   WHEN 'running' THEN said.attempts + 1
                   -- A run that is cancelled while it waits has had no further attempt.
                   WHEN 'cancelled' THEN greatest(run.attempt, said.attempts)
                   ELSE said.attempts END AS attempt,
               CASE WHEN said.abort_requested THEN coalesce(run.cancel_requested_at, now())
                    WHEN said.status = 'todo' THEN NULL
                    ELSE run.cancel_requested_at END AS cancel_requested_at
          FROM said
          JOIN action_runs AS run ON run.job_id = said.job_id
    ), changed AS (
        UPDATE action_runs AS run
           SET state = due.state, attempt = due.attempt, queue = due.queue_name, priority = due.priority,
               lock = due.lock, schedule_at = due.scheduled_at, cancel_requested_at = due.cancel_requested_at,
               worker_id = coalesce(due.worker_id, run.worker_id),
               started_at = CASE WHEN due.state = 'running' AND run.state <> 'running' THEN now()
                                 ELSE run.started_at END,
               finished_at = CASE WHEN due.is_final THEN coalesce(run.finished_at, now()) END,
               snoozes = CASE WHEN run.finished_at IS NULL OR due.is_final THEN run.snoozes ELSE 0 END,
               last_seq = run.last_seq + 1
          FROM due
         WHERE run.id = due.id
           AND (run.state, run.attempt, run.queue, run.priority, run.lock, run.schedule_at, run.cancel_requested_at)
               IS DISTINCT FROM
               (due.state, due.attempt, due.queue_name, due.priority, due.lock, due.scheduled_at,
                due.cancel_requested_at)
        RETURNING run.id, run.last_seq, run.state, run.attempt, run.error, run.schedule_at, run.cancel_requested_at
    )
    INSERT INTO run_events (run_id, seq, type, data)
    SELECT id, last_seq, 'state', jsonb_strip_nulls(jsonb_build_object(
               'state', state,
               'attempt', attempt,
               'schedule_at', CASE WHEN state IN ('scheduled', 'retrying') THEN schedule_at END,
               'cancel_requested', CASE WHEN state = 'running' AND cancel_requested_at IS NOT NULL THEN true END,
               'error', CASE WHEN state IN ('failed', 'retrying') THEN error END))
      FROM changed;
    END IF;

    -- For what was put back, for those that wait for a lock, and for the timers of those that wait for a time.
    PERFORM runledger_ring_v1(array_agg(DISTINCT queue_name), 'job_inserted', 0)
       FROM updated
      WHERE status = 'todo' OR (status <> 'doing' AND lock IS NOT NULL);

    FOR asked IN
        SELECT job.id, job.queue_name FROM updated AS job JOIN before USING (id)
         WHERE job.status = 'doing' AND job.abort_requested AND NOT before.abort_requested
    LOOP
        PERFORM runledger_ring_v1(ARRAY[asked.queue_name], 'abort_job_requested', asked.id);
    END LOOP;

    -- Whoever frees a place under a limit, or a lock, wakes those that wait for it, in whichever queue they are. One
    -- notification a queue and a statement, and none where nobody waits. The queues with limited jobs are walked as a
    -- claim walks them. A lock has rung in the queue of who held it: what is left are those in another.
    IF EXISTS (SELECT FROM updated WHERE status <> 'doing' AND (limit_key IS NOT NULL OR lock IS NOT NULL)) THEN
        PERFORM runledger_ring_v1((
            WITH RECURSIVE freed AS MATERIALIZED (
                SELECT DISTINCT job.queue_name, job.lock,
                       CASE WHEN limits.concurrency IS NOT NULL THEN job.limit_key END AS key
                  FROM updated AS job
                  JOIN before USING (id)
                  LEFT JOIN limits ON limits.task_name = job.task_name
                 WHERE before.status = 'doing' AND job.status <> 'doing'
            ), limited_queue (name) AS (
                (SELECT queue_name FROM procrastinate_jobs
                  WHERE EXISTS (SELECT FROM freed WHERE key IS NOT NULL)
                    AND status = 'todo' AND scheduled_at IS NULL AND lock IS NULL AND limit_key IS NOT NULL
                  ORDER BY queue_name, limit_key, ~priority, id LIMIT 1)
                 UNION ALL
                SELECT following.queue_name
                  FROM limited_queue CROSS JOIN LATERAL (
                    SELECT queue_name FROM procrastinate_jobs
                     WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NULL AND limit_key IS NOT NULL
                       AND queue_name > limited_queue.name
                     ORDER BY queue_name, limit_key, ~priority, id LIMIT 1) AS following
            ), waiting AS (
                SELECT name FROM limited_queue
                 WHERE EXISTS (SELECT FROM freed JOIN procrastinate_jobs AS job ON job.limit_key = freed.key
                                WHERE job.status = 'todo' AND job.scheduled_at IS NULL AND job.lock IS NULL
                                  AND job.limit_key IS NOT NULL AND job.queue_name = limited_queue.name)
                 UNION
                SELECT first.queue_name
                  FROM freed CROSS JOIN LATERAL (
                    SELECT queue_name FROM procrastinate_jobs
                     WHERE status = 'todo' AND scheduled_at IS NULL AND lock = freed.lock
                     ORDER BY ~priority, id LIMIT 1) AS first
                 WHERE first.queue_name <> freed.queue_name
            )
            SELECT array_agg(name::text) FROM waiting), 'job_inserted', 0);
    END IF;
    RETURN NULL;
END $$;
"""

# Whoever changes a run's state inserts an event, so here every change is seen, in the transaction that makes it. A run
# that succeeds has had no trouble since it was claimed, and its row is not looked at.
EVENTS_INSERTED = """
CREATE FUNCTION runledger_events_inserted_v2() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed text[];
    ended text[];
BEGIN
    PERFORM pg_notify('runledger_events', CASE WHEN count(*) > 100 THEN '*' ELSE string_agg(run_id, ' ') END)
       FROM (SELECT DISTINCT run_id FROM inserted) AS runs
     HAVING count(*) > 0;

    SELECT array_agg(run_id) FILTER (WHERE seq > 1 AND data ->> 'state' <> 'succeeded'),
           array_agg(run_id) FILTER (WHERE data ->> 'state' IN ('succeeded', 'failed', 'cancelled'))
      INTO changed, ended
      FROM inserted WHERE type = 'state';
    IF changed IS NOT NULL THEN
        UPDATE action_runs
           SET trouble = CASE WHEN state IN ('retrying', 'failed', 'cancelled') THEN state END,
               fingerprint = CASE WHEN state = 'failed' AND coalesce(discarded_at < finished_at, true)
                                  THEN runledger_fingerprint_v1(action, error) END
         WHERE id = ANY (changed) AND (trouble IS NOT NULL OR state IN ('retrying', 'failed', 'cancelled'));
    END IF;
    IF ended IS NOT NULL THEN
        PERFORM runledger_wake_parents_v1(ended);
        PERFORM runledger_tell_webhooks_v1(ended);
    END IF;
    RETURN NULL;
END $$;
"""

# What was a trigger of its own (app_0010), told of the runs. The action that is submitted here is also named in
# app/runs/children.py.
WAKE_PARENTS = """
CREATE FUNCTION runledger_wake_parents_v1(ended text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    kept text := current_setting('runledger.keeps_ledger', true);
    brought text[];
    failing text[];
    woken bigint[];
BEGIN
    -- All that it costs while no run has had a child, and none waits.
    IF NOT EXISTS (SELECT FROM run_children) AND NOT EXISTS (SELECT FROM run_waits) THEN
        RETURN;
    END IF;

    PERFORM runledger_lock_wait_v1(parent_id)
       FROM (SELECT DISTINCT parent_id FROM run_children WHERE child_id = ANY (ended) ORDER BY parent_id) AS parent;
    WITH told AS (
        UPDATE run_children SET is_awaited = false WHERE child_id = ANY (ended) AND is_awaited
        RETURNING parent_id, child_id
    )
    SELECT array_agg(parent_id),
           array_agg(parent_id) FILTER (
               WHERE child_id IN (SELECT id FROM action_runs
                                   WHERE id = ANY (ended) AND state IN ('failed', 'cancelled')))
      INTO brought, failing FROM told;
    WITH over AS (
        DELETE FROM run_waits AS wait
         WHERE run_id = ANY (brought) AND signal IS NULL
           AND (NOT EXISTS (SELECT FROM run_children WHERE parent_id = wait.run_id AND is_awaited)
                OR (run_id = ANY (failing) AND policy = 'cancel'))
        RETURNING job_id
    )
    SELECT array_agg(job_id) INTO woken FROM over;
    IF woken IS NOT NULL THEN
        PERFORM runledger_wake_v1(woken);
    END IF;

    -- What has ended waits for nothing.
    DELETE FROM run_waits WHERE run_id = ANY (ended);
    -- Not here: who holds a child may be about to wake the parent, which is held here.
    PERFORM set_config('runledger.keeps_ledger', 'off', true);
    INSERT INTO procrastinate_jobs (task_name, args, queue_name, priority)
    SELECT 'cancel_children', jsonb_build_object('run_id', run.id), run.queue, run.priority
      FROM action_runs AS run
     WHERE run.id = ANY (ended) AND run.state = 'cancelled'
       AND EXISTS (SELECT FROM run_children AS child JOIN procrastinate_jobs AS job ON job.id = child.job_id
                    WHERE child.parent_id = run.id AND job.status IN ('todo', 'doing'));
    PERFORM set_config('runledger.keeps_ledger', coalesce(kept, ''), true);
END $$;
"""

# What was a trigger of its own (app_0006), told of the runs: a run's last event is its end. A delivery is performed by
# a run like any other, whose own end tells nobody. Its job waits under one of two locks of its endpoint: however slow
# that one is, it holds two runs of the workers. The lock, the queue and the action are also named in app/webhooks.
TELL_WEBHOOKS = """
CREATE FUNCTION runledger_tell_webhooks_v1(ended text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    kept text := current_setting('runledger.keeps_ledger', true);
BEGIN
    -- All that it costs while nobody has asked to be told.
    IF NOT EXISTS (SELECT FROM webhook_endpoints) THEN
        RETURN;
    END IF;

    -- Whoever ends the run may keep the ledger itself; the runs of these jobs are made by the trigger on the jobs.
    PERFORM set_config('runledger.keeps_ledger', 'off', true);
    WITH wanted AS MATERIALIZED (
        SELECT nextval('procrastinate_jobs_id_seq') AS job_id, endpoint.id AS endpoint_id,
               'dlv_' || lpad(to_hex(nextval('webhook_delivery_numbers')), 16, '0') AS delivery_id,
               run.id AS run_id, 'evt' || substr(run.id, 4) || '_' || event.seq AS event_id,
               'run.' || run.state AS type,
               jsonb_build_object(
                   'type', 'run.' || run.state,
                   'timestamp', runledger_utc_text_v1(event.at),
                   'data', jsonb_build_object(
                       'id', run.id,
                       'action', run.action,
                       'state', run.state,
                       'error', CASE WHEN jsonb_typeof(event.data -> 'error') = 'object' THEN jsonb_build_object(
                           'type', left(event.data -> 'error' ->> 'type', 200),
                           'title', left(event.data -> 'error' ->> 'title', 200),
                           'detail', left(event.data -> 'error' ->> 'detail', 1000)) END,
                       'attempt', run.attempt,
                       'queue', run.queue,
                       'tags', run.tags,
                       'created_at', runledger_utc_text_v1(run.created_at),
                       'started_at', runledger_utc_text_v1(run.started_at),
                       'finished_at', runledger_utc_text_v1(run.finished_at),
                       'parent_id', run.parent_id,
                       'replay_of', run.replay_of,
                       'links', jsonb_build_object('self', '/runs/' || run.id)))::text AS body
          FROM action_runs AS run
          JOIN run_events AS event ON event.run_id = run.id AND event.seq = run.last_seq
          JOIN webhook_endpoints AS endpoint
            ON endpoint.disabled_at IS NULL
           AND (endpoint.owner IS NULL OR endpoint.owner = run.owner)
           AND (endpoint.id = run.webhook OR 'run.' || run.state = ANY (endpoint.event_types))
         WHERE run.id = ANY (ended) AND run.action <> 'deliver_webhook'
    ), delivery AS (
        INSERT INTO webhook_deliveries (id, endpoint_id, event_id, type, run_id, body, job_id)
        SELECT delivery_id, endpoint_id, event_id, type, run_id, body, job_id FROM wanted
    )
    INSERT INTO procrastinate_jobs (id, task_name, args, queue_name, lock)
    SELECT job_id, 'deliver_webhook', jsonb_build_object('delivery_id', delivery_id), 'webhooks',
           'webhook:' || endpoint_id || ':' || job_id % 2
      FROM wanted;
    PERFORM set_config('runledger.keeps_ledger', coalesce(kept, ''), true);
END $$;
"""

# Named for what was done by then; their functions stay for the way back, as those of the versions before them do.
PREVIOUS_TRIGGERS = {
    "procrastinate_jobs": {
        "runledger_jobs_inserted_v3": "AFTER INSERT {on} REFERENCING NEW TABLE AS inserted",
        "runledger_jobs_limited_v1": "AFTER INSERT {on} REFERENCING NEW TABLE AS inserted",
        "runledger_jobs_updated_v2": "AFTER UPDATE {on} REFERENCING OLD TABLE AS before NEW TABLE AS updated",
        "runledger_jobs_freed_v1": "AFTER UPDATE {on} REFERENCING OLD TABLE AS before NEW TABLE AS updated",
    },
    "run_events": {
        "runledger_events_inserted_v1": "AFTER INSERT {on} REFERENCING NEW TABLE AS inserted",
        "runledger_runs_ended_v1": "AFTER INSERT {on} REFERENCING NEW TABLE AS inserted",
        "runledger_webhook_outbox_v1": "AFTER INSERT {on} REFERENCING NEW TABLE AS inserted",
    },
}
TRIGGERS = {
    "procrastinate_jobs": {
        "runledger_jobs_inserted_v4": "AFTER INSERT {on} REFERENCING NEW TABLE AS inserted",
        "runledger_jobs_updated_v3": "AFTER UPDATE {on} REFERENCING OLD TABLE AS before NEW TABLE AS updated",
    },
    "run_events": {
        "runledger_events_inserted_v2": "AFTER INSERT {on} REFERENCING NEW TABLE AS inserted",
    },
}
UNLESS_ALL = "WHEN (current_setting('runledger.keeps_ledger', true) IS DISTINCT FROM 'all')"
FUNCTIONS = {
    "runledger_jobs_inserted_v4()": JOBS_INSERTED,
    "runledger_jobs_updated_v3()": JOBS_UPDATED,
    "runledger_wake_parents_v1(text[])": WAKE_PARENTS,
    "runledger_tell_webhooks_v1(text[])": TELL_WEBHOOKS,
    "runledger_events_inserted_v2()": EVENTS_INSERTED,
}

GENERATED = """
DROP INDEX ix_action_runs_trouble_job_id;
DROP INDEX ix_action_runs_fingerprint_job_id;
ALTER TABLE action_runs DROP COLUMN trouble, DROP COLUMN fingerprint;
ALTER TABLE action_runs
    ADD COLUMN trouble text GENERATED ALWAYS AS (
        CASE WHEN state IN ('retrying', 'failed', 'cancelled') THEN state END) STORED,
    ADD COLUMN fingerprint text GENERATED ALWAYS AS (
        CASE WHEN state = 'failed' AND coalesce(discarded_at < finished_at, true)
             THEN runledger_fingerprint_v1(action, error) END) STORED;
CREATE INDEX ix_action_runs_trouble_job_id ON action_runs (trouble, job_id) WHERE trouble IS NOT NULL;
CREATE INDEX ix_action_runs_fingerprint_job_id ON action_runs (fingerprint, job_id) WHERE fingerprint IS NOT NULL;
"""
RETRIED_BY_HAND = """
CREATE TRIGGER runledger_retried_by_hand_v1
    AFTER UPDATE OF state ON action_runs
    FOR EACH ROW
    WHEN (OLD.finished_at IS NOT NULL AND NEW.finished_at IS NULL AND NEW.snoozes > 0)
    EXECUTE FUNCTION runledger_retried_by_hand_v1();
"""


def upgrade() -> None:
    drop(PREVIOUS_TRIGGERS)
    op.execute("DROP TRIGGER runledger_retried_by_hand_v1 ON action_runs")
    for column in ("trouble", "fingerprint"):
        op.execute(f"ALTER TABLE action_runs ALTER COLUMN {column} DROP EXPRESSION")
    for script in FUNCTIONS.values():
        run_sql(script)
    create(TRIGGERS, UNLESS_ALL)


def downgrade() -> None:
    drop(TRIGGERS)
    for function in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {function}")
    run_sql(GENERATED)
    run_sql(RETRIED_BY_HAND)
    create(PREVIOUS_TRIGGERS)


def drop(triggers: dict[str, dict[str, str]]) -> None:
    for table, of_table in triggers.items():
        for name in of_table:
            op.execute(f"DROP TRIGGER {name} ON {table}")


def create(triggers: dict[str, dict[str, str]], condition: str = "") -> None:
    for table, of_table in triggers.items():
        for name, when in of_table.items():
            run_sql(
                f"CREATE TRIGGER {name} {when.format(on=f'ON {table}')} "
                f"FOR EACH STATEMENT {condition} EXECUTE FUNCTION {name}();"
            )
