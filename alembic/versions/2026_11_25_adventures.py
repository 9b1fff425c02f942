"""Adventures: entries that runs write, what is chosen at their ends, their translations and sounds."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.engine.schema import run_sql

revision = "app_0010"
down_revision = "app_0012"
branch_labels = None
depends_on = None

TIME = postgresql.TIMESTAMP(timezone=True)

# An entry is an error when its run has ended without it, in the transaction of that end, whoever made it: a worker, the
# sweep that counts lost workers, a cancellation, the `procrastinate` command. A run that goes on makes it pending again.
# Who submits the action himself changes no entry but his own.
ENTRY_ENDED = """
CREATE FUNCTION runledger_adventure_entry_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    said text := NEW.params ->> 'entry_id';
BEGIN
    -- Params may have been written by hand, and must not keep a run from ending.
    IF said ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        UPDATE adventure_entries AS entry
           SET status = CASE WHEN NEW.state IN ('failed', 'cancelled') THEN 'error' ELSE 'pending' END
          FROM adventures AS adventure
         WHERE entry.id = said::uuid AND entry.status <> 'complete' AND adventure.id = entry.adventure_id
           AND (NEW.owner IS NULL OR NEW.owner = adventure.owner);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER runledger_adventure_entry_v1
    AFTER UPDATE OF state ON action_runs
    FOR EACH ROW
    WHEN (NEW.action = 'generate_adventure_entry' AND NEW.state <> OLD.state
          AND (NEW.state IN ('failed', 'cancelled') OR OLD.state IN ('failed', 'cancelled')))
    EXECUTE FUNCTION runledger_adventure_entry_v1();
"""


def belongs_to(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}", ondelete="CASCADE")


def upgrade() -> None:
    op.create_table(
        "adventures",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("native_language", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("premise", sa.Text()),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_adventures"),
    )
    op.create_index("ix_adventures_owner_created_at_id", "adventures", ["owner", "created_at", "id"])
    op.create_table(
        "adventure_entries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("adventure_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("text", sa.Text()),
        sa.Column("words", postgresql.JSONB()),
        sa.Column("run_id", sa.Text(collation="C")),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_adventure_entries"),
        sa.UniqueConstraint("adventure_id", "position", name="uq_adventure_entries_adventure_id_position"),
        belongs_to("adventure_entries", "adventure_id", "adventures"),
        sa.CheckConstraint("status IN ('pending', 'complete', 'error')", name="ck_adventure_entries_status"),
    )
    op.create_table(
        "adventure_choices",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_adventure_choices"),
        sa.UniqueConstraint("entry_id", "position", name="uq_adventure_choices_entry_id_position"),
        belongs_to("adventure_choices", "entry_id", "adventure_entries"),
    )
    op.create_table(
        "adventure_decisions",
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("choice_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("entry_id", name="pk_adventure_decisions"),
        belongs_to("adventure_decisions", "entry_id", "adventure_entries"),
        belongs_to("adventure_decisions", "choice_id", "adventure_choices"),
    )
    op.create_index("ix_adventure_decisions_choice_id", "adventure_decisions", ["choice_id"])
    op.create_table(
        "adventure_translations",
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("entry_id", "language", name="pk_adventure_translations"),
        belongs_to("adventure_translations", "entry_id", "adventure_entries"),
    )
    op.create_table(
        "adventure_audio",
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("entry_id", name="pk_adventure_audio"),
        belongs_to("adventure_audio", "entry_id", "adventure_entries"),
    )
    run_sql(ENTRY_ENDED)


def downgrade() -> None:
    op.execute("DROP TRIGGER runledger_adventure_entry_v1 ON action_runs")
    op.execute("DROP FUNCTION runledger_adventure_entry_v1()")
    for table in ("audio", "translations", "decisions", "choices", "entries"):
        op.drop_table(f"adventure_{table}")
    op.drop_table("adventures")
