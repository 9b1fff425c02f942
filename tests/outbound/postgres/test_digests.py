"""Digests, and what feeds have said, in a real database."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.outbound.postgres.digests import DigestShelf
from app.outbound.web.page import Validators

NIGHT = date(2026, 11, 25)
FEED = "https://a.example/feed"
DIGEST = {"title": "Light", "summary": "é", "items": [{"title": "x"}], "feeds": [], "passed_over": 2}


def feed(**said: Any) -> dict[str, Any]:
    return {"url": FEED, "problem": None, "validators": None, "listed": []} | said


def validators(etag: str | None, last_modified: str | None = None) -> dict[str, Any]:
    return {"url": f"{FEED}/", "etag": etag, "last_modified": last_modified}


YEAR = timedelta(days=365)


async def put(shelf: DigestShelf, run_id: str, *articles: str, **said: Any) -> None:
    await shelf.put_digest(NIGHT, run_id, digest=DIGEST, feeds=[feed(**said)], articles=articles)


async def test_a_night_has_the_digest_of_whoever_was_first(engine: AsyncEngine) -> None:
    shelf = DigestShelf(engine)
    assert await shelf.get_digest(NIGHT) is None
    await asyncio.gather(*(put(shelf, f"run_{n}", f"article-{n}") for n in range(5)))
    stored = await shelf.get_digest(NIGHT)
    assert stored is not None
    assert {name: stored[name] for name in DIGEST} == DIGEST
    won = stored["run_id"].removeprefix("run_")
    asked = [f"article-{n}" for n in range(5)]
    assert await shelf.list_new(asked) == set(asked) - {f"article-{won}"}, "of the others nothing is stored"


async def test_a_digest_is_stored_with_its_articles_and_feeds_or_not_at_all(engine: AsyncEngine) -> None:
    shelf = DigestShelf(engine)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE feeds ADD CONSTRAINT none CHECK (false)"))
    refused = await asyncio.gather(put(shelf, "run", "a"), return_exceptions=True)
    assert isinstance(refused[0], Exception)
    assert await shelf.get_digest(NIGHT) is None
    assert await shelf.list_new(["a"]) == {"a"}


async def test_validators_are_those_of_the_last_time_that_a_feed_was_read(engine: AsyncEngine) -> None:
    shelf = DigestShelf(engine)
    assert await shelf.get_validators(FEED) is None
    await shelf.put_feeds([feed(problem="down")])
    assert await shelf.get_validators(FEED) is None
    await shelf.put_feeds([feed(validators=validators('"1"', "Tue"))])
    assert await shelf.get_validators(FEED) == Validators(f"{FEED}/", '"1"', "Tue")
    await shelf.put_feeds([feed(problem="down again")])
    assert await shelf.get_validators(FEED) == Validators(f"{FEED}/", '"1"', "Tue")
    await shelf.put_feeds([feed(validators=validators(None))])
    assert await shelf.get_validators(FEED) == Validators(f"{FEED}/", None, None)


async def aged(engine: AsyncEngine, table: str, column: str) -> None:
    """Make all its rows two years older."""
    async with engine.begin() as connection:
        await connection.execute(text(f"UPDATE {table} SET {column} = {column} - interval '2 years'"))


async def test_digests_of_long_ago_are_deleted_in_batches(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.outbound.postgres.digests.PRUNE_BATCH", 2)
    shelf = DigestShelf(engine)
    today = datetime.now(UTC).date()
    for days in (0, 364, 366, 367, 368, 369, 370):
        await shelf.put_digest(today - timedelta(days=days), "run", digest=DIGEST, feeds=[], articles=[])
    assert await shelf.prune(older_than=YEAR) == 5
    assert await shelf.get_digest(today) is not None
    assert await shelf.get_digest(today - timedelta(days=364)) is not None
    assert await shelf.prune(older_than=YEAR) == 0


async def test_an_article_of_long_ago_is_forgotten_when_no_feed_lists_it(engine: AsyncEngine) -> None:
    shelf = DigestShelf(engine)
    articles = ["listed", "gone", "passed over"]
    await put(shelf, "run", *articles, validators=validators('"1"'), listed=["listed", "gone"])
    await aged(engine, "digest_articles", "night")
    # Down tonight, and unchanged in the next one: it lists what it has listed.
    await shelf.put_feeds([feed(problem="down")])
    await shelf.prune(older_than=YEAR)
    assert await shelf.list_new(articles) == {"passed over"}
    await shelf.put_feeds([feed(validators=validators('"2"'), listed=["listed"])])
    await shelf.prune(older_than=YEAR)
    assert await shelf.list_new(articles) == {"gone", "passed over"}


async def test_a_young_article_is_known_whoever_lists_it(engine: AsyncEngine) -> None:
    shelf = DigestShelf(engine)
    await shelf.put_digest(datetime.now(UTC).date(), "run", digest=DIGEST, feeds=[], articles=["a"])
    await shelf.prune(older_than=YEAR)
    assert await shelf.list_new(["a"]) == set()


async def test_a_feed_that_was_not_asked_for_a_year_is_forgotten_with_what_it_listed(engine: AsyncEngine) -> None:
    shelf = DigestShelf(engine)
    await put(shelf, "run", "a", validators=validators('"1"'), listed=["a"])
    for table, column in (("digest_articles", "night"), ("feeds", "checked_at")):
        await aged(engine, table, column)
    await shelf.prune(older_than=YEAR)
    assert await shelf.get_validators(FEED) is None
    assert await shelf.list_new(["a"]) == {"a"}
