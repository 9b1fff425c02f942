"""Every statement about keys and about the audit log, one function each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.access.models import ApiKey, AuditEntry
from app.access.networks import Network

KeyRow = Row[Any]
AuditRow = Row[Any]

_KEYS = select(
    ApiKey.__table__,
    (func.coalesce(ApiKey.expires_at > func.now(), True) & ApiKey.revoked_at.is_(None)).label("is_valid"),
    (func.coalesce(ApiKey.last_used_at < func.now() - timedelta(minutes=1), True)).label("is_newly_used"),
)


async def insert_key(
    connection: AsyncConnection,
    *,
    id_: str,
    digest: bytes,
    name: str,
    owner: str | None,
    scopes: list[str],
    networks: list[Network],
    lifetime: timedelta | None,
) -> None:
    """Store a key, which expires after `lifetime` by the clock of the database."""
    await connection.execute(
        insert(ApiKey).values(
            id=id_,
            digest=digest,
            name=name,
            owner=owner,
            scopes=scopes,
            networks=networks,
            expires_at=None if lifetime is None else func.now() + lifetime,
        )
    )


async def get_key(connection: AsyncConnection, id_: str) -> KeyRow | None:
    """A key, whether it is valid now, and whether its last use is not of this minute."""
    return (await connection.execute(_KEYS.where(ApiKey.id == id_))).first()


async def list_keys(connection: AsyncConnection) -> list[KeyRow]:
    """All keys, the newest first, those that are no longer valid too."""
    return list((await connection.execute(_KEYS.order_by(ApiKey.created_at.desc(), ApiKey.id))).all())


async def revoke_key(connection: AsyncConnection, id_: str) -> bool:
    """Make a key invalid from now on.

    Returns:
        Whether there is such a key. One that was revoked before stays as it is.
    """
    statement = (
        update(ApiKey)
        .where(ApiKey.id == id_)
        .values(revoked_at=func.coalesce(ApiKey.revoked_at, func.now()))
        .returning(ApiKey.id)
    )
    return (await connection.execute(statement)).first() is not None


async def touch_key(connection: AsyncConnection, id_: str) -> None:
    """Note that a key is used now."""
    await connection.execute(update(ApiKey).where(ApiKey.id == id_).values(last_used_at=func.now()))


async def insert_audit_entry(
    connection: AsyncConnection, *, actor: str, route: str, object_id: str | None, outcome: int
) -> None:
    """Write down who did what, now."""
    await connection.execute(insert(AuditEntry).values(actor=actor, route=route, object_id=object_id, outcome=outcome))


async def insert_audit_entries(connection: AsyncConnection, *, actor: str, route: str, outcomes: Sequence[int]) -> None:
    """Write down many things that somebody did, now, none of them to an object that has a name."""
    entries = [{"actor": actor, "route": route, "outcome": outcome} for outcome in outcomes]
    await connection.execute(insert(AuditEntry), entries)


async def list_audit_entries(
    connection: AsyncConnection, *, limit: int, before: int | None, actor: str | None, object_id: str | None
) -> list[AuditRow]:
    """Entries, newest first, older than the one whose id is `before`."""
    statement = select(AuditEntry.__table__).order_by(AuditEntry.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(AuditEntry.id < before)
    if actor is not None:
        statement = statement.where(AuditEntry.actor == actor)
    if object_id is not None:
        statement = statement.where(AuditEntry.object_id == object_id)
    return list((await connection.execute(statement)).all())


async def delete_audit_entries(connection: AsyncConnection, *, older_than: timedelta, limit: int) -> int:
    """Delete those of the `limit` oldest entries that are older, by the one function that is allowed to.

    Returns:
        How many were deleted.
    """
    statement = text("SELECT runledger_prune_audit_v1(CAST(:older_than AS interval), :limit)")
    return (await connection.execute(statement, {"older_than": older_than, "limit": limit})).scalar_one()
