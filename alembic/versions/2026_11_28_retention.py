"""What each feed has listed last, so that what is known of articles can be forgotten without telling them anew."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "app_0016"
down_revision = "app_0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("feeds", sa.Column("articles", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False))
    # Asked by these, a feed that has not changed would not say what it lists.
    op.execute("UPDATE feeds SET found_at = NULL, etag = NULL, last_modified = NULL")


def downgrade() -> None:
    op.drop_column("feeds", "articles")
