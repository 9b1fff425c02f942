"""Texts that are found by what they mean: embedded and stored in collections, and searched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.domain.journal import Journal
from app.errors import Rejected
from app.outbound.embeddings.client import EmbeddedText, Embeddings

CHUNK = 100
"""Texts of one step."""
WORD = re.compile(r"\w")
PASSAGE = 1000
"""Characters. The vector of a long text says little about any of its parts."""

Collection = Annotated[str, Field(min_length=1, max_length=100, examples=["library"])]


class Source(BaseModel):
    """A text, and where it is from."""

    text: str
    source: str | None = None


class EmbedTexts(BaseModel):
    """Texts to be found later: given, or those that a run of `scrape_page` or `scrape_site` has read."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"collection": "library", "texts": ["A lighthouse is a tower with a lamp."]}]},
    )

    collection: Collection
    texts: list[Annotated[str, Field(min_length=1, max_length=10_000)]] | None = Field(
        default=None, min_length=1, max_length=1000, examples=[["A lighthouse is a tower with a lamp."]]
    )
    run_id: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.texts is None) == (self.run_id is None):
            raise ValueError("give either texts or run_id")
        return self


class EmbeddedTexts(BaseModel):
    """How many were stored, and how many have no word in them."""

    collection: str
    stored: int
    skipped: int


class FoundText(BaseModel):
    """A text that was found."""

    text: str
    source: str | None
    similarity: float
    """From -1 to 1: the cosine of the angle between the two vectors."""


class FoundTexts(BaseModel):
    """The nearest texts, the most similar first."""

    items: list[FoundText]


class Library(Protocol):
    """Where texts are kept: `app.outbound.postgres.texts.Texts`."""

    async def put(self, collection: str, texts: Sequence[EmbeddedText]) -> None:
        """Store them; one that is there already is there once."""
        ...

    async def find(self, collection: str, embedding: list[float], *, limit: int) -> list[dict[str, Any]]:
        """The nearest ones."""
        ...


async def embed_texts(
    journal: Journal, embeddings: Embeddings, library: Library, collection: str, texts: Sequence[Source]
) -> EmbeddedTexts:
    """Store the texts with their vectors, a hundred in a step.

    Raises:
        Rejected: the database has no place for vectors.
    """

    async def put(chunk: Sequence[Source]) -> int:
        meant = [each for each in chunk if WORD.search(each.text)]
        vectors = await embeddings.embed([each.text for each in meant])
        embedded = [EmbeddedText(e.text, e.source, vector) for e, vector in zip(meant, vectors, strict=True)]
        await library.put(collection, embedded)
        return len(embedded)

    stored = 0
    for begin in range(0, len(texts), CHUNK):
        chunk = texts[begin : begin + CHUNK]
        stored += await journal.step(f"texts-{begin}", put, chunk)
        await journal.progress(begin + len(chunk), len(texts))
    return EmbeddedTexts(collection=collection, stored=stored, skipped=len(texts) - stored)


async def search_texts(
    embeddings: Embeddings, library: Library, collection: str, query: str, *, limit: int
) -> FoundTexts:
    """The texts of a collection that are nearest to what `query` means.

    Raises:
        Rejected: there is no word in the query, or the database has no place for vectors.
    """
    if not WORD.search(query):
        raise Rejected("There is no word in this query. Ask with words.")
    [vector] = await embeddings.embed([query])
    found = await library.find(collection, vector, limit=limit)
    return FoundTexts(items=[FoundText.model_validate(each) for each in found])


def passages(pages: Iterable[Source]) -> list[Source]:
    """The texts in pieces of up to 1,000 characters, cut between lines where that can be."""
    return [Source(text=piece, source=page.source) for page in pages for piece in _pieces(page.text)]


def _pieces(text: str) -> Iterator[str]:
    piece = ""
    for line in text.splitlines():
        for begin in range(0, len(line), PASSAGE):
            part = line[begin : begin + PASSAGE]
            if len(piece) + len(part) >= PASSAGE and piece:
                yield piece
                piece = ""
            piece = f"{piece}\n{part}" if piece else part
    if piece.strip():
        yield piece
