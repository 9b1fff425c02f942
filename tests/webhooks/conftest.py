"""A workshop that delivers webhooks, as the real app does."""

from __future__ import annotations

import pytest
from tests.support.workshop import Workshop

from app.config import Settings
from app.errors import Rejected
from app.outbound.webhooks.client import webhook_policy
from app.runs.context import Run
from app.webhooks import deliveries, service
from app.webhooks.deliveries import Delivered
from app.webhooks.schemas import DeliveryRead, EventType, WebhookCreate, WebhookWithSecret
from app.webhooks.sealing import Seal


@pytest.fixture
def patience() -> float:
    """Seconds that a receiver may take; those that hang are tested with less."""
    return 20


@pytest.fixture
def settings(settings: Settings, patience: float) -> Settings:
    return settings.model_copy(update={"webhook_timeout_seconds": patience})


OPEN = Seal([])


class Post(Workshop):
    """A workshop whose runs are told about."""

    async def endpoint(self, url: str, *types: str, owner: str | None = None) -> WebhookWithSecret:
        request = WebhookCreate(url=url, event_types=[EventType(each) for each in types or tuple(EventType)])
        return await service.create(self.engine, OPEN, webhook_policy(production=False), request, owner=owner)

    async def log(self, endpoint: WebhookWithSecret) -> list[DeliveryRead]:
        """What the endpoint was told, newest first."""
        page = await deliveries.list_page(self.engine, endpoint.id, owner=None, limit=50, cursor=None)
        return page.items


@pytest.fixture
def post(workshop: Workshop) -> Post:
    @workshop.action(deliveries.ACTION, queue=deliveries.QUEUE, retry=deliveries.RETRY)
    async def deliver_webhook(run: Run, delivery_id: str) -> Delivered:
        return await deliveries.deliver(workshop.engine, OPEN, run, delivery_id)

    @workshop.action()
    async def echo(message: str = "") -> str:
        return message

    @workshop.action()
    async def refuse() -> None:
        raise Rejected("never")

    return Post(workshop.settings, workshop.engine, workshop.queue, workshop.action, workshop.intake)
