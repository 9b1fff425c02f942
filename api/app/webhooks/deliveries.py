"""Deliveries: one event for one endpoint, attempted until it arrives, and the log of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine

from app.engine.retry import RetryTable
from app.errors import (
    ActionError,
    DeliveryNotFound,
    DeliveryPending,
    InvalidCursor,
    RateLimited,
    Rejected,
    Unavailable,
    WebhookDisabled,
    WebhookNotFound,
)
from app.outbound.postgres.database import autocommit
from app.outbound.webhooks.client import Answer, WebhookClient
from app.runs.context import Run
from app.webhooks import queries
from app.webhooks.schemas import DeliveryPage, DeliveryRead, read_delivery
from app.webhooks.sealing import Seal
from app.webhooks.service import NOT_FOUND

ACTION = "deliver_webhook"
QUEUE = "webhooks"
RETRY = RetryTable(waits=(5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400))
"""The table of Standard Webhooks: ten attempts in three days."""
DELIVERY_ID = re.compile(r"dlv_[0-9a-f]{16}")
PRUNE_BATCH = 1000
GONE = 410
THROTTLED = frozenset({429, 502, 503, 504})


class Delivered(BaseModel):
    """What the receiver answered."""

    status_code: int


class ReceiverBusy(RateLimited):
    """The receiver asks for patience. A counted attempt all the same: it was sent the event, and has ten."""

    uses_attempt: ClassVar[bool] = True


@dataclass(frozen=True)
class Attempt:
    """What one attempt came to."""

    status_code: int | None
    error: ActionError | None
    """`None`: it was delivered."""


async def deliver(engine: AsyncEngine, seal: Seal, run: Run, delivery_id: str) -> Delivered:
    """Attempt a delivery, and write down what came of it. The receiver may get an event again, under the same id.

    Raises:
        Unavailable: it did not arrive, and is to be attempted again.
        Rejected: it can no longer be delivered, or another run delivers it.
    """
    async with autocommit(engine).connect() as connection:
        outgoing = await queries.get_outgoing(connection, delivery_id, run_id=run.id)
    if outgoing is None:
        raise Rejected("There is nothing that this run delivers: deliveries are made when runs end.")
    if outgoing.is_disabled:
        raise Rejected("The endpoint is disabled. Enable it, then ask for this delivery again.")
    attempt = await _attempt(run.clients.webhooks, seal, outgoing)
    await _record(engine, outgoing, attempt, is_last=run.attempt >= RETRY.max_attempts)
    if attempt.error is not None:
        raise attempt.error
    assert attempt.status_code is not None
    return Delivered(status_code=attempt.status_code)


async def list_page(
    engine: AsyncEngine, endpoint_id: str, *, owner: str | None, limit: int, cursor: str | None
) -> DeliveryPage:
    """A page of an endpoint's deliveries, newest first.

    Raises:
        WebhookNotFound: there is no such endpoint.
        InvalidCursor: the cursor is not one of ours.
    """
    if cursor is not None and not DELIVERY_ID.fullmatch(cursor):
        raise InvalidCursor(detail="The cursor did not come from this API.")
    async with autocommit(engine).connect() as connection:
        if await queries.get_endpoint(connection, endpoint_id, owner=owner) is None:
            raise WebhookNotFound(detail=NOT_FOUND)
        rows = await queries.list_deliveries(connection, endpoint_id, limit=limit + 1, before=cursor)
    page = rows[:limit]
    return DeliveryPage(items=[read_delivery(row) for row in page], next=page[-1].id if len(rows) > limit else None)


async def redeliver(engine: AsyncEngine, endpoint_id: str, delivery_id: str, *, owner: str | None) -> DeliveryRead:
    """Attempt a delivery anew, whether it arrived or not: the same id, the same bytes.

    Returns:
        The delivery, which is pending again.

    Raises:
        WebhookNotFound: there is no such endpoint.
        WebhookDisabled: it is disabled.
        DeliveryNotFound: it has no such delivery.
        DeliveryPending: it is being attempted.
    """
    async with engine.begin() as connection:
        endpoint = await queries.get_endpoint(connection, endpoint_id, owner=owner)
        if endpoint is None:
            raise WebhookNotFound(detail=NOT_FOUND)
        if endpoint.disabled_at is not None:
            raise WebhookDisabled(detail="The endpoint is disabled. Enable it first.")
        delivery = await queries.lock_delivery(connection, delivery_id, endpoint_id=endpoint_id)
        if delivery is None:
            raise DeliveryNotFound(detail="This endpoint has no delivery with that id.")
        if delivery.state == "pending":
            raise DeliveryPending(detail="The delivery is still being attempted.")
        await queries.insert_job(connection, delivery_id, action=ACTION, queue=QUEUE, lock=f"webhook:{endpoint_id}:0")
        return read_delivery(await queries.get_delivery(connection, delivery_id))


async def prune(engine: AsyncEngine, *, older_than: timedelta) -> int:
    """Delete deliveries of longer ago, in small batches, each its own transaction.

    Returns:
        How many.
    """
    deleted = 0
    while True:
        async with autocommit(engine).connect() as connection:
            batch = await queries.delete_old_deliveries(connection, older_than=older_than, limit=PRUNE_BATCH)
        deleted += batch
        if batch < PRUNE_BATCH:
            return deleted


async def _attempt(client: WebhookClient, seal: Seal, outgoing: queries.DeliveryRow) -> Attempt:
    try:
        secrets = [seal.open(stored) for stored in (outgoing.secret, outgoing.old_secret) if stored is not None]
        answer = await client.post(outgoing.url, outgoing.body, event_id=outgoing.event_id, secrets=secrets)
    except ActionError as error:
        return Attempt(None, error)
    return Attempt(answer.status_code, _refusal(answer))


def _refusal(answer: Answer) -> ActionError | None:
    status = answer.status_code
    match status:
        case _ if 200 <= status < 300:
            return None
        case _ if status == GONE:
            return Rejected("The receiver answered 410 (Gone), so the endpoint was disabled.")
        case _ if 300 <= status < 400:
            return Unavailable(f"The receiver answered {status}: redirects are not followed. Give the final URL.")
        case _ if status in THROTTLED and answer.retry_after is not None:
            return ReceiverBusy(f"The receiver answered {status}.", retry_after=answer.retry_after)
        case _:
            return Unavailable(f"The receiver answered {status}.")


async def _record(engine: AsyncEngine, outgoing: queries.DeliveryRow, attempt: Attempt, *, is_last: bool) -> None:
    async with engine.begin() as connection:
        await queries.record_attempt(
            connection,
            outgoing.id,
            status_code=attempt.status_code,
            error=attempt.error and str(attempt.error),
            delivered=attempt.error is None,
        )
        if attempt.status_code == GONE:
            because = "It answered 410 (Gone)."
        elif (
            attempt.error is not None
            and is_last
            and not await queries.has_delivered_since(connection, outgoing.endpoint_id, since=outgoing.created_at)
        ):
            because = "Nothing has arrived there for as long as a delivery is attempted."
        else:
            return
        await queries.disable_endpoint(connection, outgoing.endpoint_id, because=because)
        await queries.cancel_waiting_jobs(connection, outgoing.endpoint_id)
