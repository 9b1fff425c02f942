"""The tables of the news digest, and every statement about them, one function each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import Column, Date, Integer, MetaData, PrimaryKeyConstraint, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.outbound.postgres.database import autocommit
from app.outbound.web.page import Validators

metadata = MetaData()

#: Alembic makes them; a test holds them against what it makes.
feeds = Table(
    "feeds",
    metadata,
    Column("url", Text(collation="C"), nullable=False),
    Column("found_at", Text()),
    Column("etag", Text()),
    Column("last_modified", Text()),
    Column("problem", Text()),
    Column("checked_at", TIMESTAMP(timezone=True), server_default=text("now()"), nullable=False),
    PrimaryKeyConstraint("url", name="pk_feeds"),
)
digests = Table(
    "digests",
    metadata,
    Column("night", Date(), nullable=False),
    Column("run_id", Text(), nullable=False),
    Column("title", Text(), nullable=False),
    Column("summary", Text(), nullable=False),
    Column("items", JSONB(), nullable=False),
    Column("feeds", JSONB(), nullable=False),
    Column("passed_over", Integer(), nullable=False),
    Column("created_at", TIMESTAMP(timezone=True), server_default=text("now()"), nullable=False),
    PrimaryKeyConstraint("night", name="pk_digests"),
)
digest_articles = Table(
    "digest_articles",
    metadata,
    Column("id", Text(collation="C"), nullable=False),
    Column("night", Date(), nullable=False),
    PrimaryKeyConstraint("id", name="pk_digest_articles"),
)


class DigestShelf:
    """Where digests are kept, what feeds have said, and which articles no later digest shall have."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get_digest(self, night: date) -> Mapping[str, Any] | None:
        """The digest of a night: `{night, run_id, title, summary, items, feeds, passed_over}`."""
        async with autocommit(self._engine).connect() as connection:
            return await get_digest(connection, night)

    async def get_validators(self, feed: str) -> Validators | None:
        """By what a feed can be asked whether it has changed since it was last read."""
        async with autocommit(self._engine).connect() as connection:
            return await get_validators(connection, feed)

    async def list_new(self, articles: Sequence[str]) -> set[str]:
        """Those of these ids that no digest had."""
        async with autocommit(self._engine).connect() as connection:
            return await list_new(connection, articles)

    async def put_digest(
        self,
        night: date,
        run_id: str,
        *,
        digest: dict[str, Any],
        feeds: Sequence[dict[str, Any]],
        articles: Sequence[str],
    ) -> None:
        """Store a digest, its articles and its feeds in one transaction, unless there is one of that night."""
        async with self._engine.begin() as connection:
            if await insert_digest(connection, night, run_id, digest):
                await insert_articles(connection, night, articles)
                await upsert_feeds(connection, feeds)

    async def put_feeds(self, feeds: Sequence[dict[str, Any]]) -> None:
        """Remember how it went with feeds: `url`, `problem`, and `validators` unless they are still the same."""
        async with self._engine.begin() as connection:
            await upsert_feeds(connection, feeds)


async def get_digest(connection: AsyncConnection, night: date) -> Mapping[str, Any] | None:
    """One digest."""
    statement = text("""
        SELECT night, run_id, title, summary, items, feeds, passed_over FROM digests WHERE night = :night
    """)
    row = (await connection.execute(statement, {"night": night})).mappings().first()
    return None if row is None else dict(row)


async def insert_digest(connection: AsyncConnection, night: date, run_id: str, digest: dict[str, Any]) -> bool:
    """Store a digest, unless there is one of that night."""
    statement = text("""
        INSERT INTO digests (night, run_id, title, summary, items, feeds, passed_over)
        SELECT :night, :run_id, title, summary, items, feeds, passed_over
          FROM jsonb_to_record(CAST(:digest AS jsonb))
               AS said (title text, summary text, items jsonb, feeds jsonb, passed_over int)
            ON CONFLICT (night) DO NOTHING
        RETURNING night
    """)
    values = {"night": night, "run_id": run_id, "digest": json.dumps(digest)}
    return (await connection.execute(statement, values)).first() is not None


async def insert_articles(connection: AsyncConnection, night: date, articles: Sequence[str]) -> None:
    """Note articles that no later digest shall have, by their ids."""
    statement = text("""
        INSERT INTO digest_articles (id, night) SELECT unnest(CAST(:articles AS text[])), :night
            ON CONFLICT (id) DO NOTHING
    """)
    await connection.execute(statement, {"articles": list(articles), "night": night})


async def list_new(connection: AsyncConnection, articles: Sequence[str]) -> set[str]:
    """Those of these ids that are not noted."""
    statement = text("""
        SELECT id FROM unnest(CAST(:articles AS text[])) AS asked (id)
         WHERE NOT EXISTS (SELECT FROM digest_articles AS noted WHERE noted.id = asked.id)
    """)
    return set((await connection.execute(statement, {"articles": list(articles)})).scalars())


async def get_validators(connection: AsyncConnection, feed: str) -> Validators | None:
    """What came with a feed when it was last read."""
    statement = text("SELECT found_at, etag, last_modified FROM feeds WHERE url = :feed AND found_at IS NOT NULL")
    row = (await connection.execute(statement, {"feed": feed})).first()
    return None if row is None else Validators(row.found_at, row.etag, row.last_modified)


async def upsert_feeds(connection: AsyncConnection, feeds: Sequence[dict[str, Any]]) -> None:
    """Say how it went with feeds; without new `validators`, the old ones stay."""
    statement = text("""
        INSERT INTO feeds AS kept (url, problem, found_at, etag, last_modified, checked_at)
        SELECT url, problem, validators->>'url', validators->>'etag', validators->>'last_modified', now()
          FROM jsonb_to_recordset(CAST(:feeds AS jsonb)) AS said (url text, problem text, validators jsonb)
         ORDER BY url
        ON CONFLICT (url) DO UPDATE
           SET problem = excluded.problem, checked_at = excluded.checked_at,
               found_at = coalesce(excluded.found_at, kept.found_at),
               etag = CASE WHEN excluded.found_at IS NULL THEN kept.etag ELSE excluded.etag END,
               last_modified = CASE WHEN excluded.found_at IS NULL THEN kept.last_modified
                                    ELSE excluded.last_modified END
    """)
    await connection.execute(statement, {"feeds": json.dumps(list(feeds))})
