"""The news digest: one a night, the feeds that it is made of, and the articles that no later one shall have."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "app_0014"
down_revision = "app_0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "feeds",
        sa.Column("url", sa.Text(collation="C"), nullable=False),
        *(sa.Column(name, sa.Text()) for name in ("found_at", "etag", "last_modified", "problem")),
        moment("checked_at"),
        sa.PrimaryKeyConstraint("url", name="pk_feeds"),
    )
    op.create_table(
        "digests",
        sa.Column("night", sa.Date(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("run_id", "title", "summary")),
        *(sa.Column(name, postgresql.JSONB(), nullable=False) for name in ("items", "feeds")),
        sa.Column("passed_over", sa.Integer(), nullable=False),
        moment("created_at"),
        sa.PrimaryKeyConstraint("night", name="pk_digests"),
    )
    op.create_table(
        "digest_articles",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("night", sa.Date(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_digest_articles"),
    )


def moment(name: str) -> sa.Column:
    return sa.Column(name, postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False)


def downgrade() -> None:
    for table in ("digest_articles", "digests", "feeds"):
        op.drop_table(table)
