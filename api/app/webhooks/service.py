"""What can be done with webhook endpoints: make, read, rotate, enable, delete. Each is one transaction.

Throughout, `owner` is whose endpoint it must be; `None`: anybody's.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Collection
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine
from ssrfguard import Policy

from app.errors import Fault, InvalidInput, Rejected, TooManyWebhooks, WebhookNotFound
from app.outbound.postgres.database import autocommit
from app.outbound.webhooks.client import checked_url
from app.webhooks import queries
from app.webhooks.schemas import WebhookCreate, WebhookRead, WebhookWithSecret, read_endpoint
from app.webhooks.sealing import PREFIX, Seal

ENDPOINT_ID = re.compile(r"whe_[0-9a-f]{16}")
MOST_ENDPOINTS = 20
"""For one owner: each end of a run is compared with all of them."""
SECRET_BYTES = 32
ROTATION = timedelta(hours=24)
"""How long the old secret signs too."""
NOT_FOUND = "There is no webhook endpoint with that id."


async def create(
    engine: AsyncEngine, seal: Seal, policy: Policy, request: WebhookCreate, *, owner: str | None
) -> WebhookWithSecret:
    """Make an endpoint, with a secret of its own.

    Raises:
        InvalidInput: the URL may not receive events.
        TooManyWebhooks: the owner has as many as there may be.
    """
    try:
        checked_url(request.url, policy)
    except Rejected as error:
        raise InvalidInput(errors=[Fault(pointer="/url", detail=str(error), type="url_not_allowed")]) from error
    secret = _new_secret()
    async with engine.begin() as connection:
        await queries.lock_endpoints(connection, owner=owner)
        if await queries.count_endpoints(connection, owner=owner) >= MOST_ENDPOINTS:
            raise TooManyWebhooks(detail=f"You have {MOST_ENDPOINTS} webhook endpoints. Delete one first.")
        row = await queries.insert_endpoint(
            connection,
            id=f"whe_{secrets.token_hex(8)}",
            owner=owner,
            url=request.url,
            event_types=sorted(set(request.event_types)),
            description=request.description,
            secret=seal.close(secret),
        )
    return _with_secret(row, secret)


async def list_all(engine: AsyncEngine, *, owner: str | None) -> list[WebhookRead]:
    """The endpoints, the oldest first."""
    async with autocommit(engine).connect() as connection:
        return [read_endpoint(row) for row in await queries.list_endpoints(connection, owner=owner)]


async def get(engine: AsyncEngine, endpoint_id: str, *, owner: str | None) -> WebhookRead:
    """One endpoint.

    Raises:
        WebhookNotFound: there is none with that id.
    """
    async with autocommit(engine).connect() as connection:
        return read_endpoint(_found(await queries.get_endpoint(connection, endpoint_id, owner=owner)))


async def delete(engine: AsyncEngine, endpoint_id: str, *, owner: str | None) -> None:
    """Delete an endpoint, its log, and what it has not been told yet.

    Raises:
        WebhookNotFound: there is none with that id.
    """
    async with engine.begin() as connection:
        if not await queries.delete_endpoint(connection, endpoint_id, owner=owner):
            raise WebhookNotFound(detail=NOT_FOUND)
        await queries.cancel_waiting_jobs(connection, endpoint_id)
        await queries.delete_deliveries_of(connection, endpoint_id)


async def rotate_secret(engine: AsyncEngine, seal: Seal, endpoint_id: str, *, owner: str | None) -> WebhookWithSecret:
    """Give an endpoint another secret. For a day, events are signed with both.

    Raises:
        WebhookNotFound: there is none with that id.
    """
    secret = _new_secret()
    async with engine.begin() as connection:
        row = await queries.rotate_secret(
            connection, endpoint_id, owner=owner, secret=seal.close(secret), overlap=ROTATION
        )
        return _with_secret(_found(row), secret)


async def enable(engine: AsyncEngine, endpoint_id: str, *, owner: str | None) -> WebhookRead:
    """Tell an endpoint again of the runs that end from now on.

    Raises:
        WebhookNotFound: there is none with that id.
    """
    async with engine.begin() as connection:
        return read_endpoint(_found(await queries.enable_endpoint(connection, endpoint_id, owner=owner)))


async def nameable(engine: AsyncEngine, ids: Collection[str], *, owner: str | None) -> frozenset[str]:
    """Those of the ids that a run of this owner may name in `webhook`."""
    possible = [each for each in ids if ENDPOINT_ID.fullmatch(each)]
    if not possible:
        return frozenset()
    async with autocommit(engine).connect() as connection:
        return frozenset(await queries.list_nameable(connection, possible, owner=owner))


def _new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def _found(row: queries.EndpointRow | None) -> queries.EndpointRow:
    if row is None:
        raise WebhookNotFound(detail=NOT_FOUND)
    return row


def _with_secret(row: queries.EndpointRow, secret: str) -> WebhookWithSecret:
    return WebhookWithSecret(**read_endpoint(row).model_dump(), secret=secret)
