"""Who wants to be told, and what they are told. Written with the end of a run by `runledger_tell_webhooks_v1`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.runs.models import ID, Base


class WebhookEndpoint(Base):
    """A URL that wants to be told when runs end."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    #: Whose runs it is told about. NULL: everybody's.
    owner: Mapped[str | None]
    url: Mapped[str]
    #: None of them: it is told about the runs that name it.
    event_types: Mapped[list[str]]
    description: Mapped[str | None]
    secret: Mapped[str]
    #: The secret before, which signs too until then.
    old_secret: Mapped[str | None]
    old_secret_until: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_because: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class WebhookDelivery(Base):
    """One event for one endpoint.

    No foreign keys: who deletes an endpoint or a run must neither fail nor hold up a run that ends.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (UniqueConstraint("endpoint_id", "event_id"), Index(None, "endpoint_id", "id"))

    #: In the order in which runs ended, more or less.
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(ID)
    #: What receivers know it by: the same at every attempt.
    event_id: Mapped[str] = mapped_column(ID)
    type: Mapped[str]
    #: The run that has ended.
    run_id: Mapped[str] = mapped_column(ID)
    #: Every attempt sends these bytes.
    body: Mapped[str]
    #: The job of the run that delivers it, the newest if it was delivered again.
    job_id: Mapped[int] = mapped_column(BigInteger)
    #: [{at, status_code, error}]
    attempts: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'"))
    delivered_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
