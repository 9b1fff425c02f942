"""The tables of control. The engine writes and reads them by its own statements."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Double, text
from sqlalchemy.orm import Mapped, mapped_column

from app.runs.models import Base


class QueuePause(Base):
    """A queue that no worker claims from, until somebody resumes it or `resume_at` has come."""

    __tablename__ = "queue_pauses"

    queue_name: Mapped[str] = mapped_column(primary_key=True)
    #: The actor.
    paused_by: Mapped[str]
    reason: Mapped[str | None]
    paused_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    resume_at: Mapped[datetime | None]


class Limit(Base):
    """How many jobs of a task may run at once, and how often one may start. Declared in code, registered by workers."""

    __tablename__ = "limits"

    task_name: Mapped[str] = mapped_column(primary_key=True)
    concurrency: Mapped[int | None]
    #: The token bucket: one start comes back every so many seconds, up to `burst`.
    seconds_a_start: Mapped[float | None] = mapped_column(Double())
    burst: Mapped[int | None]
    #: Each value of this parameter is limited by itself. NULL: the task as a whole.
    by_param: Mapped[str | None]
    #: Whether the jobs that were there before the limit have got their keys.
    is_adopted: Mapped[bool] = mapped_column(server_default=text("false"))


class LimitKey(Base):
    """What is counted together. A claim that starts jobs of a key has its row and moves `version` on."""

    __tablename__ = "limit_keys"

    key: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    #: When the bucket will be full again if nothing starts.
    full_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class Worker(Base):
    """What a worker says of itself. Its heartbeat is in Procrastinate's table, by the same id."""

    __tablename__ = "workers"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    host: Mapped[str]
    pid: Mapped[int]
    version: Mapped[str]
    #: NULL: all.
    queues: Mapped[list[str] | None]
    #: The tasks that it knows.
    actions: Mapped[list[str]]
    concurrency: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
