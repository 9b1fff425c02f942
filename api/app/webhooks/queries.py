"""Every statement about webhook endpoints and deliveries, one function each.

Here `owner` is whose endpoint it must be; `None`: anybody's.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.webhooks.models import WebhookEndpoint

EndpointRow = Row[Any]
DeliveryRow = Row[Any]

_IS_THE_OWNERS = "(CAST(:owner AS text) IS NULL OR owner = :owner)"


async def insert_endpoint(connection: AsyncConnection, **values: Any) -> EndpointRow:
    """A new endpoint: id, owner, url, event_types, description, secret."""
    statement = insert(WebhookEndpoint).values(values).returning(WebhookEndpoint.__table__)
    return (await connection.execute(statement)).one()


async def lock_endpoints(connection: AsyncConnection, *, owner: str | None) -> None:
    """Let nobody else make an endpoint of this owner until the end of the transaction."""
    statement = text("SELECT pg_advisory_xact_lock(hashtextextended('runledger.webhooks:' || :owner, 0))")
    await connection.execute(statement, {"owner": owner or ""})


async def count_endpoints(connection: AsyncConnection, *, owner: str | None) -> int:
    """How many there are of exactly this owner."""
    statement = select(func.count()).where(WebhookEndpoint.owner.is_not_distinct_from(owner))
    return (await connection.execute(statement)).scalar_one()


async def list_endpoints(connection: AsyncConnection, *, owner: str | None) -> list[EndpointRow]:
    """Endpoints, the oldest first."""
    statement = select(WebhookEndpoint.__table__).order_by(WebhookEndpoint.created_at, WebhookEndpoint.id)
    if owner is not None:
        statement = statement.where(WebhookEndpoint.owner == owner)
    return list((await connection.execute(statement)).all())


async def get_endpoint(connection: AsyncConnection, endpoint_id: str, *, owner: str | None) -> EndpointRow | None:
    """One endpoint, if it is the owner's."""
    statement = select(WebhookEndpoint.__table__).where(WebhookEndpoint.id == endpoint_id)
    if owner is not None:
        statement = statement.where(WebhookEndpoint.owner == owner)
    return (await connection.execute(statement)).first()


async def list_nameable(connection: AsyncConnection, ids: Collection[str], *, owner: str | None) -> list[str]:
    """Those of the ids that are endpoints of exactly this owner."""
    statement = select(WebhookEndpoint.id).where(
        WebhookEndpoint.id.in_(ids), WebhookEndpoint.owner.is_not_distinct_from(owner)
    )
    return list((await connection.execute(statement)).scalars())


async def delete_endpoint(connection: AsyncConnection, endpoint_id: str, *, owner: str | None) -> bool:
    """Whether there was one."""
    statement = text(f"DELETE FROM webhook_endpoints WHERE id = :id AND {_IS_THE_OWNERS} RETURNING id")  # noqa: S608 - no value
    return (await connection.execute(statement, {"id": endpoint_id, "owner": owner})).first() is not None


async def rotate_secret(
    connection: AsyncConnection, endpoint_id: str, *, owner: str | None, secret: str, overlap: timedelta
) -> EndpointRow | None:
    """Give it another secret; the one before signs too for as long as `overlap`."""
    statement = text(f"""
        UPDATE webhook_endpoints
           SET secret = :secret, old_secret = secret, old_secret_until = now() + CAST(:overlap AS interval)
         WHERE id = :id AND {_IS_THE_OWNERS}
        RETURNING *
    """)  # noqa: S608 - no value
    arguments = {"id": endpoint_id, "owner": owner, "secret": secret, "overlap": overlap}
    return (await connection.execute(statement, arguments)).first()


async def enable_endpoint(connection: AsyncConnection, endpoint_id: str, *, owner: str | None) -> EndpointRow | None:
    """Let it be told again of what ends from now on."""
    statement = text(f"""
        UPDATE webhook_endpoints SET disabled_at = NULL, disabled_because = NULL
         WHERE id = :id AND {_IS_THE_OWNERS}
        RETURNING *
    """)  # noqa: S608 - no value
    return (await connection.execute(statement, {"id": endpoint_id, "owner": owner})).first()


async def disable_endpoint(connection: AsyncConnection, endpoint_id: str, *, because: str) -> None:
    """Send it nothing more."""
    statement = text("""
        UPDATE webhook_endpoints SET disabled_at = now(), disabled_because = :because
         WHERE id = :id AND disabled_at IS NULL
    """)
    await connection.execute(statement, {"id": endpoint_id, "because": because})


async def has_delivered_since(connection: AsyncConnection, endpoint_id: str, *, since: datetime) -> bool:
    """Whether an event has reached the endpoint after that time."""
    statement = text("""
        SELECT EXISTS (SELECT FROM webhook_deliveries WHERE endpoint_id = :endpoint_id AND delivered_at > :since)
    """)
    return (await connection.execute(statement, {"endpoint_id": endpoint_id, "since": since})).scalar_one()


async def cancel_waiting_jobs(connection: AsyncConnection, endpoint_id: str) -> None:
    """Cancel the runs that wait to deliver something to the endpoint."""
    statement = text("""
        UPDATE procrastinate_jobs SET status = 'cancelled'
         WHERE status = 'todo'
           AND id = ANY (ARRAY(SELECT job_id FROM webhook_deliveries
                                WHERE endpoint_id = :endpoint_id AND delivered_at IS NULL))
    """)
    await connection.execute(statement, {"endpoint_id": endpoint_id})


async def delete_deliveries_of(connection: AsyncConnection, endpoint_id: str) -> None:
    """Delete the log of an endpoint."""
    statement = text("DELETE FROM webhook_deliveries WHERE endpoint_id = :endpoint_id")
    await connection.execute(statement, {"endpoint_id": endpoint_id})


_STATE = """
    CASE WHEN delivery.delivered_at IS NOT NULL THEN 'delivered'
         WHEN run.finished_at IS NULL AND run.id IS NOT NULL THEN 'pending'
         ELSE 'failed' END AS state
"""
_DELIVERY = f"""
    SELECT delivery.id, event_id, type, run_id, attempts, delivered_at, delivery.created_at, {_STATE},
           CASE WHEN run.finished_at IS NULL THEN run.schedule_at END AS next_attempt_at
      FROM webhook_deliveries AS delivery
      LEFT JOIN action_runs AS run ON run.job_id = delivery.job_id
"""  # noqa: S608 - no value


async def list_deliveries(
    connection: AsyncConnection, endpoint_id: str, *, limit: int, before: str | None
) -> list[DeliveryRow]:
    """What an endpoint was told, the newest first, older than the delivery `before`. Its run says how it stands."""
    statement = text(f"""
        {_DELIVERY}
         WHERE endpoint_id = :endpoint_id AND (CAST(:before AS text) IS NULL OR delivery.id < :before)
         ORDER BY delivery.id DESC
         LIMIT :limit
    """)
    arguments = {"endpoint_id": endpoint_id, "before": before, "limit": limit}
    return list((await connection.execute(statement, arguments)).all())


async def get_delivery(connection: AsyncConnection, delivery_id: str) -> DeliveryRow:
    """One that is there."""
    return (await connection.execute(text(f"{_DELIVERY} WHERE delivery.id = :id"), {"id": delivery_id})).one()


async def lock_delivery(connection: AsyncConnection, delivery_id: str, *, endpoint_id: str) -> DeliveryRow | None:
    """A delivery of the endpoint, held until the end of the transaction."""
    statement = text(f"""
        SELECT delivery.id, {_STATE}
          FROM webhook_deliveries AS delivery
          LEFT JOIN action_runs AS run ON run.job_id = delivery.job_id
         WHERE delivery.id = :id AND endpoint_id = :endpoint_id
           FOR UPDATE OF delivery
    """)  # noqa: S608 - no value
    return (await connection.execute(statement, {"id": delivery_id, "endpoint_id": endpoint_id})).first()


async def insert_job(connection: AsyncConnection, delivery_id: str, *, action: str, queue: str, lock: str) -> None:
    """Have a run deliver it once more; what `runledger_tell_webhooks_v1` does when a run ends."""
    statement = text("""
        WITH job AS (
            INSERT INTO procrastinate_jobs (task_name, args, queue_name, lock)
            VALUES (:action, jsonb_build_object('delivery_id', CAST(:id AS text)), :queue, :lock)
            RETURNING id
        )
        UPDATE webhook_deliveries SET job_id = job.id, delivered_at = NULL FROM job WHERE webhook_deliveries.id = :id
    """)
    await connection.execute(statement, {"id": delivery_id, "action": action, "queue": queue, "lock": lock})


async def get_outgoing(connection: AsyncConnection, delivery_id: str, *, run_id: str) -> DeliveryRow | None:
    """What to send where, signed with which secrets, if it is this run that delivers it."""
    statement = text("""
        SELECT delivery.id, endpoint_id, event_id, body, delivery.created_at, url, secret,
               CASE WHEN old_secret_until > now() THEN old_secret END AS old_secret,
               disabled_at IS NOT NULL AS is_disabled
          FROM webhook_deliveries AS delivery
          JOIN webhook_endpoints AS endpoint ON endpoint.id = endpoint_id
          JOIN action_runs AS run ON run.job_id = delivery.job_id
         WHERE delivery.id = :id AND run.id = :run_id
    """)
    return (await connection.execute(statement, {"id": delivery_id, "run_id": run_id})).first()


async def record_attempt(
    connection: AsyncConnection, delivery_id: str, *, status_code: int | None, error: str | None, delivered: bool
) -> None:
    """Write down what an attempt came to. Not fenced: it was made, whoever holds the run now."""
    statement = text("""
        UPDATE webhook_deliveries
           SET attempts = attempts || jsonb_set(CAST(:attempt AS jsonb), '{at}', to_jsonb(clock_timestamp())),
               delivered_at = CASE WHEN :delivered THEN now() ELSE delivered_at END
         WHERE id = :id
    """)
    attempt = json.dumps({"at": None, "status_code": status_code, "error": error})
    await connection.execute(statement, {"id": delivery_id, "attempt": attempt, "delivered": delivered})


async def delete_old_deliveries(connection: AsyncConnection, *, older_than: timedelta, limit: int) -> int:
    """Delete deliveries of long ago that are no longer attempted.

    Returns:
        How many.
    """
    statement = text("""
        DELETE FROM webhook_deliveries WHERE id = ANY (ARRAY(
            SELECT id FROM webhook_deliveries AS delivery
             WHERE created_at < now() - CAST(:older_than AS interval)
               AND NOT EXISTS (SELECT FROM procrastinate_jobs
                                WHERE id = delivery.job_id AND status IN ('todo', 'doing'))
             ORDER BY id
             LIMIT :limit))
    """)
    return (await connection.execute(statement, {"older_than": older_than, "limit": limit})).rowcount
