"""A key may be for some networks only: who has found it elsewhere can do nothing with it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "app_0017"
down_revision = "app_0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "api_keys",
        sa.Column("networks", postgresql.ARRAY(postgresql.CIDR()), server_default=sa.text("'{}'"), nullable=False),
    )


def downgrade() -> None:
    op.drop_column("api_keys", "networks")
