"""Who may, and who did: API keys, and an audit log that only grows."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.engine.schema import run_sql

revision = "app_0009"
down_revision = "app_0008"
branch_labels = None
depends_on = None

ID = sa.Text(collation="C")
TIME = sa.TIMESTAMP(timezone=True)

# Also against whoever owns the table: a mistake must not take away what somebody did. Retention has a door of its own.
APPEND_ONLY = """
CREATE FUNCTION runledger_audit_is_append_only_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('runledger.prunes_audit', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'audit_log is append-only' USING ERRCODE = 'insufficient_privilege',
        HINT = 'AUDIT_DAYS says how long entries are kept; prune_ledger deletes them.';
END $$;

CREATE TRIGGER runledger_audit_is_append_only_v1
    BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION runledger_audit_is_append_only_v1();

-- Not by a SET clause of the function, which only a superuser may give it.
CREATE FUNCTION runledger_prune_audit_v1(older_than interval, rows integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    pruned bigint;
BEGIN
    PERFORM set_config('runledger.prunes_audit', 'on', true);
    WITH oldest AS (
        SELECT id, at FROM audit_log ORDER BY id LIMIT rows
    ), deleted AS (
        DELETE FROM audit_log
         WHERE id = ANY (ARRAY(SELECT id FROM oldest WHERE at < now() - greatest(older_than, '1 day')))
        RETURNING id
    )
    SELECT count(*) INTO pruned FROM deleted;
    PERFORM set_config('runledger.prunes_audit', 'off', true);
    RETURN pruned;
END $$;
"""


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", ID, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("revoked_at", TIME),
        sa.Column("last_used_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text()),
        sa.Column("outcome", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    run_sql(APPEND_ONLY)


def downgrade() -> None:
    op.execute("DROP FUNCTION runledger_prune_audit_v1(interval, integer)")
    op.drop_table("audit_log")
    op.execute("DROP FUNCTION runledger_audit_is_append_only_v1()")
    op.drop_table("api_keys")
