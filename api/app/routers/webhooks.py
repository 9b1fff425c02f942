"""Webhooks: who is told when a run has ended."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi_rfc9457.server import problems

from app.config import Settings
from app.errors import (
    BodyTooLarge,
    DeliveryNotFound,
    DeliveryPending,
    Forbidden,
    InvalidCursor,
    InvalidInput,
    TooManyWebhooks,
    Unauthorized,
    UnreadableBody,
    WebhookDisabled,
    WebhookNotFound,
    WebhooksUnavailable,
)
from app.outbound.webhooks.client import webhook_policy
from app.routers.dependencies import ServicesDep
from app.routers.security import Reads, Writes
from app.routers.strict import StrictRoute
from app.runs.schemas import NO_NUL
from app.webhooks import deliveries, service
from app.webhooks.schemas import (
    DeliveryPage,
    DeliveryRead,
    RunEnded,
    WebhookCreate,
    WebhookList,
    WebhookRead,
    WebhookWithSecret,
)
from app.webhooks.sealing import Seal

router = APIRouter(prefix="/webhooks", tags=["webhooks"], route_class=StrictRoute)
events = APIRouter()
"""What receivers get, for the OpenAPI document."""

WebhookId = Annotated[str, Path(description="The id that `POST /webhooks` returned.", max_length=64, pattern=NO_NUL)]
DeliveryId = Annotated[str, Path(description="The id of a delivery of this endpoint.", max_length=64, pattern=NO_NUL)]


@router.post(
    "",
    status_code=201,
    operation_id="createWebhook",
    responses=problems(
        Unauthorized, Forbidden, UnreadableBody, BodyTooLarge, InvalidInput, TooManyWebhooks, WebhooksUnavailable
    ),
)
async def create_webhook(
    body: WebhookCreate, services: ServicesDep, principal: Writes, response: Response
) -> WebhookWithSecret:
    """Have a URL told when your runs end. The answer has its secret, which is never shown again."""
    settings = services.settings
    policy = webhook_policy(production=settings.environment == "production")
    made = await service.create(services.engine, _seal(settings), policy, body, owner=principal.owner)
    response.headers["Location"] = f"/webhooks/{made.id}"
    return made


@router.get("", operation_id="listWebhooks", responses=problems(Unauthorized, Forbidden))
async def list_webhooks(services: ServicesDep, principal: Reads) -> WebhookList:
    """Your endpoints, the oldest first."""
    return WebhookList(items=await service.list_all(services.engine, owner=principal.owner))


@router.get(
    "/{webhook_id}",
    operation_id="getWebhook",
    responses=problems(Unauthorized, Forbidden, WebhookNotFound, InvalidInput),
)
async def get_webhook(webhook_id: WebhookId, services: ServicesDep, principal: Reads) -> WebhookRead:
    """One endpoint. `disabled_because` says why nothing is sent to it."""
    return await service.get(services.engine, webhook_id, owner=principal.owner)


@router.delete(
    "/{webhook_id}",
    status_code=204,
    operation_id="deleteWebhook",
    responses=problems(Unauthorized, Forbidden, WebhookNotFound, InvalidInput),
)
async def delete_webhook(webhook_id: WebhookId, services: ServicesDep, principal: Writes) -> None:
    """Delete an endpoint and its log. What it has not been told yet, it will not be told."""
    await service.delete(services.engine, webhook_id, owner=principal.owner)


@router.post(
    "/{webhook_id}/rotate-secret",
    operation_id="rotateWebhookSecret",
    responses=problems(Unauthorized, Forbidden, WebhookNotFound, InvalidInput, WebhooksUnavailable),
)
async def rotate_secret(webhook_id: WebhookId, services: ServicesDep, principal: Writes) -> WebhookWithSecret:
    """Give an endpoint another secret. For 24 hours events carry the signatures of both."""
    seal = _seal(services.settings)
    return await service.rotate_secret(services.engine, seal, webhook_id, owner=principal.owner)


@router.post(
    "/{webhook_id}/enable",
    operation_id="enableWebhook",
    responses=problems(Unauthorized, Forbidden, WebhookNotFound, InvalidInput),
)
async def enable_webhook(webhook_id: WebhookId, services: ServicesDep, principal: Writes) -> WebhookRead:
    """Tell an endpoint that was disabled of the runs that end from now on."""
    return await service.enable(services.engine, webhook_id, owner=principal.owner)


@router.get(
    "/{webhook_id}/deliveries",
    operation_id="listDeliveries",
    responses=problems(Unauthorized, Forbidden, WebhookNotFound, InvalidCursor, InvalidInput),
)
async def list_deliveries(
    webhook_id: WebhookId,
    services: ServicesDep,
    principal: Reads,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
) -> DeliveryPage:
    """What an endpoint was told, newest first, with every attempt."""
    return await deliveries.list_page(services.engine, webhook_id, owner=principal.owner, limit=limit, cursor=cursor)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    operation_id="redeliver",
    responses=problems(
        Unauthorized, Forbidden, WebhookNotFound, DeliveryNotFound, DeliveryPending, WebhookDisabled, InvalidInput
    ),
)
async def redeliver(
    webhook_id: WebhookId, delivery_id: DeliveryId, services: ServicesDep, principal: Writes
) -> DeliveryRead:
    """Send an event again, whether it arrived or not: the same `webhook-id`, the same bytes."""
    return await deliveries.redeliver(services.engine, webhook_id, delivery_id, owner=principal.owner)


def _seal(settings: Settings) -> Seal:
    """What a new secret is stored under; in production never as it is."""
    if settings.environment == "production" and not settings.webhook_keys:
        raise WebhooksUnavailable(detail="WEBHOOK_KEY is not set: the secret would be stored as it is.")
    return Seal(settings.webhook_keys)


WebhookIdHeader = Annotated[
    str, Header(alias="webhook-id", description="The same at every attempt: do nothing at the second.")
]
WebhookTimestamp = Annotated[
    int, Header(alias="webhook-timestamp", description="When this attempt was made, in seconds since 1970.")
]
WebhookSignature = Annotated[
    str, Header(alias="webhook-signature", description="`v1,` and Base64; while a secret is rotated, two of them.")
]


@events.post("run.succeeded", operation_id="onRunSucceeded")
@events.post("run.failed", operation_id="onRunFailed")
@events.post("run.cancelled", operation_id="onRunCancelled")
def on_run_ended(
    body: RunEnded,
    webhook_id: WebhookIdHeader,
    webhook_timestamp: WebhookTimestamp,
    webhook_signature: WebhookSignature,
) -> None:
    """A run has ended. Verify the signature, then answer 2xx within 20 seconds; anything else is sent again."""
