"""Embedding and searching, with the real model and a library in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError
from tests.support.workshop import Workshop

from app.domain.vectors.texts import (
    CHUNK,
    PASSAGE,
    EmbeddedTexts,
    EmbedTexts,
    Source,
    embed_texts,
    passages,
    search_texts,
)
from app.errors import Rejected
from app.outbound.embeddings.client import DIMENSIONS, EmbeddedText, Embeddings
from app.runs.context import Run
from app.testing import perform


class Shelf:
    """A library that remembers what it was given, and finds the first of it."""

    def __init__(self) -> None:
        self.texts: list[EmbeddedText] = []

    async def put(self, collection: str, texts: Sequence[EmbeddedText]) -> None:
        self.texts += texts

    async def find(self, collection: str, embedding: list[float], *, limit: int) -> list[dict[str, Any]]:
        return [{"text": each.text, "source": each.source, "similarity": 1.0} for each in self.texts[:limit]]


async def test_the_model_puts_texts_about_one_thing_near_each_other() -> None:
    tower, light, soup = await Embeddings().embed(["a tower with a lamp", "a lighthouse", "a recipe for onion soup"])
    assert len(tower) == DIMENSIONS
    assert cosine(tower, light) > cosine(tower, soup)


async def test_texts_are_embedded_a_hundred_in_a_step_and_each_step_once(workshop: Workshop) -> None:
    shelf = Shelf()
    texts = [Source(text=f"text {n}") for n in range(CHUNK + 1)]

    @workshop.action()
    async def embed(run: Run) -> EmbeddedTexts:
        return await embed_texts(run, run.clients.embeddings, shelf, "library", texts)

    done = await perform(workshop.action["embed"])
    for each in (done, await perform(workshop.action["embed"], after=done)):
        assert (each.result["stored"], each.result["skipped"]) == (CHUNK + 1, 0)
        assert sorted(each.steps) == ["texts-0", f"texts-{CHUNK}"]
    assert len(shelf.texts) == CHUNK + 1


async def test_a_text_without_a_word_is_skipped_and_a_query_without_one_is_rejected(workshop: Workshop) -> None:
    shelf = Shelf()

    @workshop.action()
    async def embed(run: Run) -> EmbeddedTexts:
        texts = [Source(text=" "), Source(text="word")]
        return await embed_texts(run, run.clients.embeddings, shelf, "library", texts)

    done = (await perform(workshop.action["embed"])).result
    assert (done["stored"], done["skipped"]) == (1, 1)
    with pytest.raises(Rejected, match="no word"):
        await search_texts(Embeddings(), shelf, "library", " ", limit=1)


def test_pages_are_cut_into_passages_between_lines_where_that_can_be() -> None:
    line = "x" * (PASSAGE // 2 - 1)
    cut = passages([Source(text=f"{line}\n{line}\n{line}", source="a"), Source(text="y" * (PASSAGE + 1), source="b")])
    assert [(len(piece.text), piece.source) for piece in cut] == [
        (PASSAGE - 1, "a"),
        (PASSAGE // 2 - 1, "a"),
        (PASSAGE, "b"),
        (1, "b"),
    ]


@pytest.mark.parametrize("given", [{}, {"texts": ["x"], "run_id": "run_1"}, {"texts": []}, {"texts": [""]}])
def test_either_texts_or_a_run_are_embedded(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EmbedTexts.model_validate({"collection": "library", **given})


def cosine(a: list[float], b: list[float]) -> float:
    def dot(x: list[float], y: list[float]) -> float:
        return sum(i * j for i, j in zip(x, y, strict=True))

    return dot(a, b) / (dot(a, a) * dot(b, b)) ** 0.5
