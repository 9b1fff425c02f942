"""Which key was sent. A process remembers a key for two seconds: so soon is a revocation heard of everywhere."""

from __future__ import annotations

import contextlib
import hmac
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.access import queries
from app.access.keys import digest_of, id_of
from app.access.networks import is_within, read_address
from app.access.principal import Principal, Scope, read_scopes
from app.errors import Forbidden, Unauthorized
from app.outbound.postgres.database import autocommit

REMEMBERED_SECONDS = 2.0
MOST_REMEMBERED = 10_000
_NO_DIGEST = bytes(32)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    row: queries.KeyRow | None
    until: float


class KeyRing:
    """The keys of the database, as one process knows them."""

    def __init__(self, engine: AsyncEngine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._known: dict[str, _Known] = {}

    async def principal(self, sent: bytes, address: str | None) -> Principal:
        """Whose key it is.

        Args:
            sent: the key.
            address: where it comes from.

        Raises:
            Unauthorized: it is none of ours, or is no longer valid.
            Forbidden: it may not be sent from there.
        """
        id_ = id_of(sent)
        if id_ is None:
            raise Unauthorized(detail="What was sent is no key of this API.")
        known, is_news = self._known.get(id_), False
        if known is None or known.until <= self._clock():
            known, is_news = await self._look_up(id_), True
        row = known.row
        # The same work for an id that there is not.
        if not hmac.compare_digest(digest_of(sent), row.digest if row else _NO_DIGEST) or row is None:
            raise Unauthorized(detail="What was sent is no key of this API.")
        if not row.is_valid:
            raise Unauthorized(detail="The key was revoked." if row.revoked_at else "The key has expired.")
        if row.networks and not is_within(address, row.networks):
            # Its owner will want to know: perhaps it is no longer his alone.
            log.warning("Key %s was sent from %s, where it may not be used.", id_, read_address(address))
            raise Forbidden(detail="The key may not be used from where you are.")
        if is_news and row.is_newly_used:
            await self._touch(id_)
        return _read(row)

    async def _look_up(self, id_: str) -> _Known:
        async with autocommit(self._engine).connect() as connection:
            row = await queries.get_key(connection, id_)
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        known = self._known[id_] = _Known(row, self._clock() + REMEMBERED_SECONDS)
        return known

    async def _touch(self, id_: str) -> None:
        # A database that takes no writes at this moment can still be read.
        with contextlib.suppress(SQLAlchemyError):
            async with autocommit(self._engine).connect() as connection:
                await queries.touch_key(connection, id_)


def _read(row: queries.KeyRow) -> Principal:
    scopes, actions = read_scopes(row.scopes)
    return Principal(f"key:{row.id}", None if Scope.ADMIN in scopes else row.owner, scopes, actions)
