"""How migrations run: one connection, one migrator at a time, one transaction a revision."""

from __future__ import annotations

import asyncio
from typing import Any

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.access import models as access_models  # noqa: F401 - whose tables are made, too
from app.config import get_settings
from app.control import models as control_models  # noqa: F401 - their tables are part of the metadata
from app.engine.schema import refuse_unnamed_scripts
from app.outbound.postgres import backlog, digests
from app.outbound.postgres.adventure_tables import metadata as adventures
from app.outbound.postgres.database import make_engine
from app.webhooks.models import Base

METADATA = [Base.metadata, adventures, backlog.metadata, digests.metadata]
MIGRATORS = 0x72756E6C  # "runl": the advisory lock that migrators take


def include_name(name: str | None, type_: str, _parents: Any) -> bool:
    """Leave Procrastinate's own tables to Procrastinate's own scripts, and texts to where pgvector is."""
    return not (type_ == "table" and name is not None and (name.startswith("procrastinate_") or name == "texts"))


def migrate(connection: Connection) -> None:
    # Waiting for another migrator may take long; waiting for a lock on a table must not.
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATORS})
    connection.execute(text("SET lock_timeout = '5s'"))
    connection.commit()
    try:
        context.configure(
            connection=connection,
            target_metadata=METADATA,
            include_name=include_name,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATORS})
        connection.commit()


async def migrate_online(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


def migrate_offline() -> None:
    context.configure(
        dialect_name="postgresql",
        target_metadata=METADATA,
        literal_binds=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


refuse_unnamed_scripts(context.script)
if context.is_offline_mode():
    migrate_offline()
elif (connection := context.config.attributes.get("connection")) is not None:
    migrate(connection)
else:
    asyncio.run(migrate_online(make_engine(get_settings(), pool_size=1)))
