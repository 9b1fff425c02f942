"""Digests, and what feeds have said, in a real database."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.outbound.postgres.digests import DigestShelf
from app.outbound.web.page import Validators

NIGHT = date(2026, 11, 25)
FEED = "https://a.example/feed"
DIGEST = {"title": "Light", "summary": "é", "items": [{"title": "x"}], "feeds": [], "passed_over": 2}


def feed(**said: Any) -> dict[str, Any]:
    return {"url": FEED, "problem": None, "validators": None} | said


def validators(etag: str | None, last_modified: str | None = None) -> dict[str, Any]:
    return {"url": f"{FEED}/", "etag": etag, "last_modified": last_modified}


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
