"""The table of the backlog, and every statement about it, one function each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Double, Index, MetaData, PrimaryKeyConstraint, Table, Text, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncEngine

from app.outbound.postgres.database import autocommit

Item = Mapping[str, Any]

metadata = MetaData()

#: Alembic makes it; a test holds this against what it makes.
backlog_items = Table(
    "backlog_items",
    metadata,
    # Compared byte by byte: batches go by its order.
    Column("key", Text(collation="C"), nullable=False),
    Column("title", Text(), nullable=False),
    Column("description", Text(), nullable=False),
    Column("reach", Double()),
    Column("impact", Double()),
    Column("confidence", Double()),
    Column("effort", Double()),
    Column("value", Double()),
    Column("time_criticality", Double()),
    Column("risk_reduction", Double()),
    Column("job_size", Double()),
    Column("rice", Double()),
    Column("wsjf", Double()),
    Column("category", Text()),
    Column("created_at", TIMESTAMP(timezone=True), server_default=text("now()"), nullable=False),
    Column("updated_at", TIMESTAMP(timezone=True), server_default=text("now()"), nullable=False),
    PrimaryKeyConstraint("key", name="pk_backlog_items"),
    Index("ix_backlog_items_unclassified", "key", postgresql_where=text("category IS NULL")),
)


class BacklogShelf:
    """The backlog, each call in a transaction of its own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = autocommit(engine)

    async def put(self, items: Sequence[Item]) -> dict[str, int]:
        """Add or change items: how many were `added`, how many `changed`. What is said otherwise loses its category."""
        statement = text("""
            INSERT INTO backlog_items AS kept (key, title, description, reach, impact, confidence, effort,
                                               value, time_criticality, risk_reduction, job_size)
            SELECT key, title, description, reach, impact, confidence, effort,
                   value, time_criticality, risk_reduction, job_size
              FROM jsonb_populate_recordset(NULL::backlog_items, CAST(:items AS jsonb))
             ORDER BY key
            ON CONFLICT (key) DO UPDATE
               SET title = excluded.title, description = excluded.description, reach = excluded.reach,
                   impact = excluded.impact, confidence = excluded.confidence, effort = excluded.effort,
                   value = excluded.value, time_criticality = excluded.time_criticality,
                   risk_reduction = excluded.risk_reduction, job_size = excluded.job_size,
                   category = CASE WHEN (kept.title, kept.description) = (excluded.title, excluded.description)
                                   THEN kept.category END,
                   updated_at = now()
             WHERE (kept.title, kept.description, kept.reach, kept.impact, kept.confidence, kept.effort,
                    kept.value, kept.time_criticality, kept.risk_reduction, kept.job_size)
                   IS DISTINCT FROM
                   (excluded.title, excluded.description, excluded.reach, excluded.impact, excluded.confidence,
                    excluded.effort, excluded.value, excluded.time_criticality, excluded.risk_reduction,
                    excluded.job_size)
            RETURNING xmax = 0 AS is_new
        """)
        async with self._engine.connect() as connection:
            new = list((await connection.execute(statement, {"items": _json(items)})).scalars())
        return {"added": new.count(True), "changed": new.count(False)}

    async def keep_only(self, keys: Sequence[str]) -> int:
        """Remove all others: how many."""
        statement = text("""
            DELETE FROM backlog_items AS item
             WHERE NOT EXISTS (SELECT FROM unnest(CAST(:keys AS text[])) AS kept (key) WHERE kept.key = item.key)
        """)
        async with self._engine.connect() as connection:
            return (await connection.execute(statement, {"keys": list(keys)})).rowcount

    async def count(self) -> int:
        """How many there are."""
        async with self._engine.connect() as connection:
            return (await connection.execute(text("SELECT count(*) FROM backlog_items"))).scalar_one()

    async def list_after(self, key: str, *, limit: int, unclassified: bool = False) -> list[Item]:
        """Those after a key, in the order of keys; `unclassified`: only those without a category."""
        statement = text("""
            SELECT * FROM backlog_items
             WHERE key > :key AND (category IS NULL OR NOT :unclassified) ORDER BY key LIMIT :limit
        """)
        return await self._list(statement, key=key, limit=limit, unclassified=unclassified)

    async def set_scores(self, scores: Sequence[Item]) -> int:
        """`key`, `rice` and `wsjf` of items: how many of them had others."""
        statement = text("""
            UPDATE backlog_items AS item SET rice = score.rice, wsjf = score.wsjf
              FROM jsonb_to_recordset(CAST(:scores AS jsonb)) AS score (key text, rice float8, wsjf float8)
             WHERE item.key = score.key AND (item.rice, item.wsjf) IS DISTINCT FROM (score.rice, score.wsjf)
        """)
        async with self._engine.connect() as connection:
            return (await connection.execute(statement, {"scores": _json(scores)})).rowcount

    async def set_categories(self, categories: Mapping[str, str]) -> None:
        """By key."""
        statement = text("""
            UPDATE backlog_items AS item SET category = said.value
              FROM jsonb_each_text(CAST(:categories AS jsonb)) AS said WHERE item.key = said.key
        """)
        async with self._engine.connect() as connection:
            await connection.execute(statement, {"categories": json.dumps(dict(categories))})

    async def list_scores(self) -> list[Item]:
        """`key`, `rice` and `wsjf` of all."""
        return await self._list(text("SELECT key, rice, wsjf FROM backlog_items"))

    async def list_best(self, limit: int) -> list[Item]:
        """`key`, `title`, `rice` and `wsjf` of those with the highest RICE, ties by key."""
        statement = text("""
            SELECT key, title, rice, wsjf FROM backlog_items
             WHERE rice IS NOT NULL ORDER BY rice DESC, key LIMIT :limit
        """)
        return await self._list(statement, limit=limit)

    async def _list(self, statement: Any, **arguments: Any) -> list[Item]:
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(statement, arguments)).mappings()]


def _json(items: Sequence[Item]) -> str:
    return json.dumps([dict(item) for item in items])
