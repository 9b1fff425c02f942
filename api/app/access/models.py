"""The tables of who may and who did. Alembic makes them; a test holds these models against what it makes."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Identity, text
from sqlalchemy.dialects.postgresql import ARRAY, CIDR
from sqlalchemy.orm import Mapped, mapped_column

from app.access.networks import Network
from app.runs.models import ID, Base


class ApiKey(Base):
    """A credential of one owner. Of the key itself there is only the SHA-256."""

    __tablename__ = "api_keys"

    #: The part of the key that may be shown.
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    digest: Mapped[bytes]
    #: What it is for, in the words of whoever made it.
    name: Mapped[str]
    #: Whose runs it submits and sees. NULL: an administrator's.
    owner: Mapped[str | None]
    scopes: Mapped[list[str]]
    #: From where it may be sent. None of them: from anywhere.
    networks: Mapped[list[Network]] = mapped_column(ARRAY(CIDR), server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    #: To the minute.
    last_used_at: Mapped[datetime | None]


class AuditEntry(Base):
    """One write, and who did it. A trigger refuses to change or to delete it."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    actor: Mapped[str]
    #: Such as `POST /runs/{run_id}/cancel`, or `runledger keys create`.
    route: Mapped[str]
    #: The run, key or whatever else it was about.
    object_id: Mapped[str | None]
    #: HTTP's number for what came of it.
    outcome: Mapped[int]
