"""How often a run was asked to wait without using an attempt, so that it does not wait for ever."""

import sqlalchemy as sa
from alembic import op

from app.engine.schema import run_sql

revision = "app_0018"
down_revision = "app_0017"
branch_labels = None
depends_on = None

# Whoever retries a run by hand, over HTTP, by the `procrastinate` command or by SQL, makes it wait as patiently as a new
# one. Not a trigger before the update, which would lock each row that ever ends or begins once more.
RETRIED_BY_HAND = """
CREATE FUNCTION runledger_retried_by_hand_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE action_runs SET snoozes = 0 WHERE id = NEW.id;
    RETURN NULL;
END $$;

CREATE TRIGGER runledger_retried_by_hand_v1
    AFTER UPDATE OF state ON action_runs
    FOR EACH ROW
    WHEN (OLD.finished_at IS NOT NULL AND NEW.finished_at IS NULL AND NEW.snoozes > 0)
    EXECUTE FUNCTION runledger_retried_by_hand_v1();
"""


def upgrade() -> None:
    op.add_column("action_runs", sa.Column("snoozes", sa.Integer(), server_default=sa.text("0"), nullable=False))
    run_sql(RETRIED_BY_HAND)


def downgrade() -> None:
    op.execute("DROP TRIGGER runledger_retried_by_hand_v1 ON action_runs")
    op.execute("DROP FUNCTION runledger_retried_by_hand_v1()")
    op.drop_column("action_runs", "snoozes")
