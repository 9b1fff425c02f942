"""API keys: how they look, and how they are made, listed and revoked.

`rl_<environment>_<id>_<secret>_<checksum>`: a scanner of leaked secrets can recognise one, and one with a typing error
is refused without asking the database. The secret has 256 random bits: a plain SHA-256 of the key is enough to store.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from app.access import queries
from app.access.networks import Network

ID_LENGTH = 12
SECRET_LENGTH = 43
"""62^43 is a little more than 2^256."""
CHECKSUM_LENGTH = 6
CLI = "cli"
"""The actor of what the command line does, directly to the database."""

_ALPHABET = string.digits + string.ascii_letters
_KEY = re.compile(
    rb"(rl_[a-z]+_([0-9A-Za-z]{%d})_[0-9A-Za-z]{%d})_([0-9A-Za-z]{%d})" % (ID_LENGTH, SECRET_LENGTH, CHECKSUM_LENGTH)
)


@dataclass(frozen=True)
class StoredKey:
    """A key, as far as it may be shown."""

    id: str
    name: str
    owner: str | None
    scopes: list[str]
    networks: list[Network]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    is_valid: bool


async def create(
    engine: AsyncEngine,
    environment: str,
    *,
    name: str,
    owner: str | None,
    scopes: frozenset[str],
    networks: Collection[Network] = (),
    lifetime: timedelta | None,
) -> str:
    """Make a key.

    Args:
        environment: a word in lower case that the key shows, such as `live`.
        scopes: words of `principal.Scope`, and `actions:NAME`.
        networks: from where it may be sent; none: from anywhere.
        lifetime: `None`: until it is revoked.

    Returns:
        The key. Nobody can ask for it again.
    """
    key = new_key(environment)
    id_ = id_of(key.encode())
    assert id_ is not None
    async with engine.begin() as connection:
        await queries.insert_key(
            connection,
            id_=id_,
            digest=digest_of(key.encode()),
            name=name,
            owner=owner,
            scopes=sorted(scopes),
            networks=list(networks),
            lifetime=lifetime,
        )
        await queries.insert_audit_entry(
            connection, actor=CLI, route="runledger keys create", object_id=id_, outcome=201
        )
    return key


async def list_all(engine: AsyncEngine) -> list[StoredKey]:
    """All keys, the newest first, those that are no longer valid too."""
    async with engine.connect() as connection:
        rows = await queries.list_keys(connection)
    return [StoredKey(**{name: getattr(row, name) for name in StoredKey.__dataclass_fields__}) for row in rows]


async def revoke(engine: AsyncEngine, id_: str) -> bool:
    """Make a key invalid: at once in the database, in every process within `keyring.REMEMBERED_SECONDS`.

    Returns:
        Whether there is such a key.
    """
    async with engine.begin() as connection:
        found = await queries.revoke_key(connection, id_)
        if found:
            await queries.insert_audit_entry(
                connection, actor=CLI, route="runledger keys revoke", object_id=id_, outcome=200
            )
    return found


def new_key(environment: str) -> str:
    """A key that nobody has seen."""
    body = f"rl_{environment}_{_random(ID_LENGTH)}_{_random(SECRET_LENGTH)}"
    return f"{body}_{_checksum(body.encode())}"


def id_of(sent: bytes) -> str | None:
    """The id in a key; `None` for what is no key, or has a typing error."""
    match = _KEY.fullmatch(sent)
    if match is None or _checksum(match[1]).encode() != match[3]:
        return None
    return match[2].decode()


def digest_of(sent: bytes) -> bytes:
    """What is stored in the place of a key."""
    return hashlib.sha256(sent).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: bytes) -> str:
    number, digits = zlib.crc32(body), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
