"""The tables of the news digest, and every statement about them, one function each."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Column, Date, Integer, MetaData, PrimaryKeyConstraint, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.outbound.postgres.database import autocommit
from app.outbound.web.page import Validators

PRUNE_BATCH = 1_000

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
    #: What it listed when it was last read, by the ids of `digest_articles`.
    Column("articles", ARRAY(Text()), server_default="{}", nullable=False),
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
        """Remember how it went with feeds: `url`, `problem`; `validators` and `listed` unless they are the same."""
        async with self._engine.begin() as connection:
            await upsert_feeds(connection, feeds)

    async def prune(self, *, older_than: timedelta) -> int:
        """Delete digests of nights before, in small batches; before them feeds that were last asked before, and what is
        known of articles of such nights that no feed lists any more: what one lists stays known, and no news.

        Returns:
            How many digests.
        """
        await self._delete(delete_old_feeds, older_than)
        await self._delete(delete_old_articles, older_than)
        return await self._delete(delete_old_digests, older_than)

    async def _delete(self, delete: Callable[..., Awaitable[int]], older_than: timedelta) -> int:
        deleted, batch = 0, PRUNE_BATCH
        while batch == PRUNE_BATCH:
            async with autocommit(self._engine).connect() as connection:
                batch = await delete(connection, older_than=older_than, limit=PRUNE_BATCH)
            deleted += batch
        return deleted


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
    """Say how it went with feeds; without new `validators`, the old ones stay, and what it listed."""
    statement = text("""
        INSERT INTO feeds AS kept (url, problem, found_at, etag, last_modified, articles, checked_at)
        SELECT url, problem, validators->>'url', validators->>'etag', validators->>'last_modified', listed, now()
          FROM jsonb_to_recordset(CAST(:feeds AS jsonb))
               AS said (url text, problem text, validators jsonb, listed text[])
         ORDER BY url
        ON CONFLICT (url) DO UPDATE
           SET problem = excluded.problem, checked_at = excluded.checked_at,
               found_at = coalesce(excluded.found_at, kept.found_at),
               etag = CASE WHEN excluded.found_at IS NULL THEN kept.etag ELSE excluded.etag END,
               last_modified = CASE WHEN excluded.found_at IS NULL THEN kept.last_modified
                                    ELSE excluded.last_modified END,
               articles = CASE WHEN excluded.found_at IS NULL THEN kept.articles ELSE excluded.articles END
    """)
    await connection.execute(statement, {"feeds": json.dumps(list(feeds))})


async def delete_old_feeds(connection: AsyncConnection, *, older_than: timedelta, limit: int) -> int:
    """Delete feeds that were last asked longer ago: how many."""
    statement = text("""
        DELETE FROM feeds WHERE url IN (
            SELECT url FROM feeds WHERE checked_at < now() - CAST(:older_than AS interval) LIMIT :limit)
    """)
    return (await connection.execute(statement, {"older_than": older_than, "limit": limit})).rowcount


async def delete_old_articles(connection: AsyncConnection, *, older_than: timedelta, limit: int) -> int:
    """Forget articles of earlier nights that no feed lists: how many."""
    statement = text("""
        DELETE FROM digest_articles WHERE id IN (
            SELECT id FROM digest_articles AS noted
             WHERE night < now() AT TIME ZONE 'UTC' - CAST(:older_than AS interval)
               AND NOT EXISTS (SELECT FROM feeds, unnest(articles) AS listed (id) WHERE listed.id = noted.id)
             LIMIT :limit)
    """)
    return (await connection.execute(statement, {"older_than": older_than, "limit": limit})).rowcount


async def delete_old_digests(connection: AsyncConnection, *, older_than: timedelta, limit: int) -> int:
    """Delete digests of earlier nights: how many."""
    statement = text("""
        DELETE FROM digests WHERE night IN (
            SELECT night FROM digests
             WHERE night < now() AT TIME ZONE 'UTC' - CAST(:older_than AS interval) ORDER BY night LIMIT :limit)
    """)
    return (await connection.execute(statement, {"older_than": older_than, "limit": limit})).rowcount
