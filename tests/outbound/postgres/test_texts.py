"""Texts and their vectors, in a real database; where that has no pgvector, only what is said then."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.errors import Rejected
from app.outbound.embeddings.client import DIMENSIONS, EmbeddedText
from app.outbound.postgres.texts import Texts


def vector(*first: float) -> list[float]:
    return [*first, *[0.0] * (DIMENSIONS - len(first))]


NORTH, EAST, NORTH_EAST = vector(1, 0), vector(0, 1), vector(1, 1)


async def test_the_nearest_texts_come_first(engine: AsyncEngine, pgvector: None) -> None:
    texts = Texts(engine, "ada")
    stored = [
        EmbeddedText("north", "a", NORTH),
        EmbeddedText("east", None, EAST),
        EmbeddedText("both", "c", NORTH_EAST),
    ]
    await texts.put("map", stored)
    found = await texts.find("map", NORTH, limit=2)
    assert [(each["text"], each["source"], round(each["similarity"], 3)) for each in found] == [
        ("north", "a", 1.0),
        ("both", "c", 0.707),
    ]


async def test_a_text_is_in_a_collection_once_however_often_it_is_put(engine: AsyncEngine, pgvector: None) -> None:
    texts = Texts(engine, "ada")
    twice = [EmbeddedText("same", "old", EAST), EmbeddedText("same", "new", NORTH)]
    await asyncio.gather(*(texts.put("map", twice) for _ in range(4)))
    [found] = await texts.find("map", NORTH, limit=10)
    assert (found["source"], found["similarity"]) == ("new", 1.0)


async def test_texts_are_found_by_their_owner_and_in_their_collection_only(engine: AsyncEngine, pgvector: None) -> None:
    for owner in ("ada", "bob", None):
        await Texts(engine, owner).put("map", [EmbeddedText(f"of {owner}", None, NORTH)])
    await Texts(engine, "ada").put("other", [EmbeddedText("elsewhere", None, NORTH)])
    for owner in ("ada", "bob", None):
        found = await Texts(engine, owner).find("map", NORTH, limit=10)
        assert [each["text"] for each in found] == [f"of {owner}"]


async def test_few_texts_are_found_among_many_of_others(engine: AsyncEngine, pgvector: None) -> None:
    crowd = [EmbeddedText(f"text {n}", None, vector(1, n / 10_000)) for n in range(500)]
    await Texts(engine, "bob").put("map", crowd)
    await Texts(engine, "ada").put("map", [EmbeddedText("mine", None, EAST)])
    assert [each["text"] for each in await Texts(engine, "ada").find("map", NORTH, limit=5)] == ["mine"]


async def test_a_database_without_pgvector_says_what_to_do(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS texts"))
    texts = Texts(engine, "ada")
    with pytest.raises(Rejected, match=r"Install pgvector .* SELECT runledger_create_texts_v1\(\)"):
        await texts.put("map", [EmbeddedText("north", None, NORTH)])
    with pytest.raises(Rejected, match="Install pgvector"):
        await texts.find("map", NORTH, limit=1)


async def test_pgvector_that_came_later_is_used_when_told(engine: AsyncEngine, pgvector: None) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE texts"))
        await connection.execute(text("DROP EXTENSION vector"))
        assert await connection.scalar(text("SELECT runledger_create_texts_v1()")) is True
    await Texts(engine, "ada").put("map", [EmbeddedText("north", None, NORTH)])
