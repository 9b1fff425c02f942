"""Webhooks: who wants to be told when a run has ended, and the outbox of what they are told."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.engine.schema import run_sql

revision = "app_0008"
down_revision = "app_0005"
branch_labels = None
depends_on = None

ID = sa.Text(collation="C")
TIME = postgresql.TIMESTAMP(timezone=True)

NUMBERS = "CREATE SEQUENCE webhook_delivery_numbers"

# Times as the API writes them, whatever the time zone of the session that ends a run.
UTC_TEXT = """
CREATE FUNCTION runledger_utc_text_v1(at timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;
"""

# Whoever ends a run inserts its last event, so here every end is seen, in the transaction that makes it. A delivery is
# performed by a run like any other, whose own end tells nobody. Its job waits under one of two locks of its endpoint:
# however slow that one is, it holds two runs of the workers. The lock, the queue and the action are also named in
# app/webhooks.
OUTBOX = """
CREATE FUNCTION runledger_webhook_outbox_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kept text := current_setting('runledger.keeps_ledger', true);
BEGIN
    -- All that it costs while nobody has asked to be told.
    IF NOT EXISTS (SELECT FROM webhook_endpoints) THEN
        RETURN NULL;
    END IF;

    -- Without an end there is nothing to insert below, which would come back here.
    IF NOT EXISTS (SELECT FROM inserted
                    WHERE type = 'state' AND data ->> 'state' IN ('succeeded', 'failed', 'cancelled')) THEN
        RETURN NULL;
    END IF;

    -- Whoever ends the run may keep the ledger itself; the runs of these jobs are made by the trigger on the jobs.
    PERFORM set_config('runledger.keeps_ledger', 'off', true);
    WITH ended AS (
        SELECT run_id, seq, at, data ->> 'state' AS state, data -> 'error' AS error
          FROM inserted
         WHERE type = 'state' AND data ->> 'state' IN ('succeeded', 'failed', 'cancelled')
    ), wanted AS MATERIALIZED (
        SELECT nextval('procrastinate_jobs_id_seq') AS job_id, endpoint.id AS endpoint_id,
               'dlv_' || lpad(to_hex(nextval('webhook_delivery_numbers')), 16, '0') AS delivery_id,
               ended.run_id, 'evt' || substr(ended.run_id, 4) || '_' || ended.seq AS event_id,
               'run.' || ended.state AS type,
               jsonb_build_object(
                   'type', 'run.' || ended.state,
                   'timestamp', runledger_utc_text_v1(ended.at),
                   'data', jsonb_build_object(
                       'id', run.id,
                       'action', run.action,
                       'state', ended.state,
                       'error', CASE WHEN jsonb_typeof(ended.error) = 'object' THEN jsonb_build_object(
                           'type', left(ended.error ->> 'type', 200),
                           'title', left(ended.error ->> 'title', 200),
                           'detail', left(ended.error ->> 'detail', 1000)) END,
                       'attempt', run.attempt,
                       'queue', run.queue,
                       'tags', run.tags,
                       'created_at', runledger_utc_text_v1(run.created_at),
                       'started_at', runledger_utc_text_v1(run.started_at),
                       'finished_at', runledger_utc_text_v1(run.finished_at),
                       'parent_id', run.parent_id,
                       'replay_of', run.replay_of,
                       'links', jsonb_build_object('self', '/runs/' || run.id)))::text AS body
          FROM ended
          JOIN action_runs AS run ON run.id = ended.run_id AND run.action <> 'deliver_webhook'
          JOIN webhook_endpoints AS endpoint
            ON endpoint.disabled_at IS NULL
           AND (endpoint.owner IS NULL OR endpoint.owner = run.owner)
           AND (endpoint.id = run.webhook OR 'run.' || ended.state = ANY (endpoint.event_types))
    ), delivery AS (
        INSERT INTO webhook_deliveries (id, endpoint_id, event_id, type, run_id, body, job_id)
        SELECT delivery_id, endpoint_id, event_id, type, run_id, body, job_id FROM wanted
    )
    INSERT INTO procrastinate_jobs (id, task_name, args, queue_name, lock)
    SELECT job_id, 'deliver_webhook', jsonb_build_object('delivery_id', delivery_id), 'webhooks',
           'webhook:' || endpoint_id || ':' || job_id % 2
      FROM wanted;
    PERFORM set_config('runledger.keeps_ledger', coalesce(kept, ''), true);
    RETURN NULL;
END $$;

CREATE TRIGGER runledger_webhook_outbox_v1
    AFTER INSERT ON run_events
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION runledger_webhook_outbox_v1();
"""


def upgrade() -> None:
    op.add_column("action_runs", sa.Column("webhook", ID))
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", ID, nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_types", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("old_secret", sa.Text()),
        sa.Column("old_secret_until", TIME),
        sa.Column("disabled_at", TIME),
        sa.Column("disabled_because", sa.Text()),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_endpoints"),
    )
    op.execute(NUMBERS)
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", ID, nullable=False),
        sa.Column("endpoint_id", ID, nullable=False),
        sa.Column("event_id", ID, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("attempts", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("delivered_at", TIME),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.UniqueConstraint("endpoint_id", "event_id", name="uq_webhook_deliveries_endpoint_id_event_id"),
    )
    op.create_index("ix_webhook_deliveries_endpoint_id_id", "webhook_deliveries", ["endpoint_id", "id"])
    for script in (UTC_TEXT, OUTBOX):
        run_sql(script)


def downgrade() -> None:
    op.execute("DROP TRIGGER runledger_webhook_outbox_v1 ON run_events")
    op.execute("DROP FUNCTION runledger_webhook_outbox_v1()")
    op.execute("DROP FUNCTION runledger_utc_text_v1(timestamptz)")
    op.drop_table("webhook_deliveries")
    op.execute("DROP SEQUENCE webhook_delivery_numbers")
    op.drop_table("webhook_endpoints")
    op.drop_column("action_runs", "webhook")
