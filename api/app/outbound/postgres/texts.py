"""Texts and their vectors, each text once in a collection of its owner."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Generator, Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.errors import Rejected
from app.outbound.embeddings.client import EmbeddedText

UNDEFINED_TABLE = "42P01"

# In one order, so that two who put the same texts do not wait for each other.
_PUT = text("""
    INSERT INTO texts (owner, collection, digest, text, source, embedding)
    SELECT :owner, :collection, decode(new.digest, 'hex'), new.text, new.source, CAST(new.embedding AS vector)
      FROM jsonb_to_recordset(CAST(:texts AS jsonb)) AS new(digest text, text text, source text, embedding text)
     ORDER BY new.digest
        ON CONFLICT (owner, collection, digest)
        DO UPDATE SET source = excluded.source, embedding = excluded.embedding
""")
_FIND = text("""
    SELECT text, source, 1 - (embedding <=> CAST(CAST(:embedding AS text) AS vector)) AS similarity
      FROM texts WHERE owner = :owner AND collection = :collection
     ORDER BY embedding <=> CAST(CAST(:embedding AS text) AS vector) LIMIT :limit
""")
# The index is of all collections: go on in it until enough are of this one.
_SEARCH_ON = text("SELECT set_config('hnsw.iterative_scan', 'strict_order', true)")


class Texts:
    """One owner's texts; without an owner, those that are nobody's."""

    def __init__(self, engine: AsyncEngine, owner: str | None) -> None:
        self._engine = engine
        self._owner = owner or ""

    async def put(self, collection: str, texts: Sequence[EmbeddedText]) -> None:
        """Store them; one that is there already is there once.

        Raises:
            Rejected: this database has no place for vectors.
        """
        rows = {_digest(each.text): each for each in texts}
        new = [
            {"digest": digest, "text": each.text, "source": each.source, "embedding": json.dumps(each.embedding)}
            for digest, each in rows.items()
        ]
        with _expecting_pgvector():
            async with self._engine.begin() as connection:
                await connection.execute(
                    _PUT, {"owner": self._owner, "collection": collection, "texts": json.dumps(new)}
                )

    async def find(self, collection: str, embedding: list[float], *, limit: int) -> list[dict[str, Any]]:
        """The nearest ones as {text, source, similarity}, the most similar first; similarity is from -1 to 1.

        Raises:
            Rejected: this database has no place for vectors.
        """
        asked = {
            "owner": self._owner,
            "collection": collection,
            "embedding": json.dumps(embedding),
            "limit": limit,
        }
        with _expecting_pgvector():
            async with self._engine.begin() as connection:
                await connection.execute(_SEARCH_ON)
                return [dict(row) for row in (await connection.execute(_FIND, asked)).mappings()]


@contextlib.contextmanager
def _expecting_pgvector() -> Generator[None]:
    try:
        yield
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != UNDEFINED_TABLE:
            raise
        raise Rejected(
            "This database cannot store vectors. Install pgvector 0.8 or newer, and call "
            "SELECT runledger_create_texts_v1() as a superuser."
        ) from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
