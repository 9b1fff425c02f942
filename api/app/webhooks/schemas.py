"""Webhooks on the wire: endpoints, deliveries, and the events that receivers get."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from app.runs.schemas import NO_NUL
from app.runs.state import RunState
from app.webhooks.queries import DeliveryRow, EndpointRow


class EventType(StrEnum):
    """What can be told. Stored in rows, so a name never changes meaning."""

    SUCCEEDED = "run.succeeded"
    FAILED = "run.failed"
    CANCELLED = "run.cancelled"


class WebhookCreate(BaseModel):
    """A URL that wants to be told when runs end."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"url": "https://example.com/hooks", "event_types": ["run.failed"]}]},
    )

    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)] = Field(
        description="Receives the events. In production https, and a public address."
    )
    event_types: list[EventType] = Field(
        default=list(EventType),
        max_length=len(EventType),
        description="Of which ends it is told. An empty list: only of the runs that name it in `webhook`.",
    )
    description: Annotated[str, StringConstraints(max_length=200, pattern=NO_NUL)] | None = None


class WebhookRead(BaseModel):
    """A webhook endpoint."""

    id: str = Field(examples=["whe_5f2b9c1d7a3e4b60"])
    url: str
    event_types: list[EventType]
    description: str | None
    disabled_at: AwareDatetime | None = Field(description="Nothing has been sent to it since; null: it is enabled.")
    disabled_because: str | None
    old_secret_until: AwareDatetime | None = Field(
        description="Until then the secret before the last rotation signs too."
    )
    created_at: AwareDatetime


class WebhookWithSecret(WebhookRead):
    """A webhook endpoint, and its secret, which is shown this once."""

    secret: str = Field(description="What events are signed with.", examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])


class WebhookList(BaseModel):
    """All webhook endpoints of a caller."""

    items: list[WebhookRead]


class AttemptRead(BaseModel):
    """One time that a delivery was sent."""

    at: AwareDatetime
    status_code: int | None = Field(description="What the receiver answered; null: it did not.")
    error: str | None = Field(description="Why it does not count as delivered.")


class DeliveryRead(BaseModel):
    """One event for one endpoint."""

    id: str
    event_id: str = Field(description="The `webhook-id` of every attempt.")
    type: EventType
    run_id: str = Field(description="The run that has ended.")
    state: Literal["pending", "delivered", "failed"]
    attempts: list[AttemptRead]
    next_attempt_at: AwareDatetime | None
    delivered_at: AwareDatetime | None
    created_at: AwareDatetime


class DeliveryPage(BaseModel):
    """Deliveries, newest first."""

    items: list[DeliveryRead]
    next: str | None = Field(description="The `cursor` of the next page; null on the last one.")


class EndedRunLinks(BaseModel):
    """Where to read the whole run, below the address of the API."""

    self: str = Field(examples=["/runs/run_20251222T101500Z_ab12cd34"])


class EndedRun(BaseModel):
    """A run that has ended, without what may be large: read params and result at `links.self`."""

    id: str
    action: str
    state: RunState
    error: dict[str, Any] | None = Field(description="Type, title and detail of the problem that ended it.")
    attempt: int
    queue: str
    tags: list[str]
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime
    parent_id: str | None
    replay_of: str | None
    links: EndedRunLinks


class RunEnded(BaseModel):
    """What a receiver gets."""

    type: EventType
    timestamp: AwareDatetime = Field(description="When it happened; `webhook-timestamp` is when it was sent.")
    data: EndedRun


def read_endpoint(row: EndpointRow) -> WebhookRead:
    """A row of `webhook_endpoints`, without its secrets."""
    return WebhookRead(**{name: row._mapping[name] for name in WebhookRead.model_fields})


def read_delivery(row: DeliveryRow) -> DeliveryRead:
    """A row of `queries.list_deliveries`."""
    return DeliveryRead(**row._mapping)
