"""The ledger's tables. Alembic makes them; a test holds these models against what it makes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, ForeignKey, Index, MetaData, Text, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.runs.state import RunState

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

_STATES = ", ".join(f"'{state}'" for state in RunState)
_FINAL = ", ".join(f"'{state}'" for state in RunState if state.is_final)


class Base(DeclarativeBase):
    """Names every constraint, so that migrations can change them."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {
        str: Text(),
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        Any: JSONB(none_as_null=True),
        list[str]: ARRAY(Text()),
        list[dict[str, Any]]: JSONB(none_as_null=True),
    }


# Ids are compared byte by byte: cheaper than any language's rules, and their order is the order of time.
ID = Text(collation="C")


class ActionRun(Base):
    """The durable record of one request to perform an action."""

    __tablename__ = "action_runs"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        CheckConstraint(f"(finished_at IS NOT NULL) = (state IN ({_FINAL}))", name="finished_at"),
        Index(None, "action", "job_id"),
        Index(None, "trouble", "job_id", postgresql_where=text("trouble IS NOT NULL")),
        Index(None, "owner", "job_id", postgresql_where=text("owner IS NOT NULL")),
        Index(None, "queue", "job_id", postgresql_where=text("queue <> 'default'")),
        Index(None, "start_deadline", postgresql_where=text("start_deadline IS NOT NULL")),
        Index(None, "fingerprint", "job_id", postgresql_where=text("fingerprint IS NOT NULL")),
        # A run that succeeds is rewritten twice: room on the page lets it stay there, without touching an index.
        {"postgresql_with": {"fillfactor": 50}},
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True, server_default=text("runledger_new_run_id_v1()"))
    #: Procrastinate's job. Kept when the job is pruned; also the order in which runs were accepted.
    job_id: Mapped[int] = mapped_column(BigInteger, unique=True)
    #: Who sees it, beside those who see everything. NULL: nobody else.
    owner: Mapped[str | None]
    action: Mapped[str]
    params: Mapped[dict[str, Any]]
    state: Mapped[str]
    #: The state, of runs that have had trouble. An index on the state itself would be written by every run. Like the
    #: fingerprint it is written by the trigger on the events; generated columns are planned anew by every statement.
    trouble: Mapped[str | None]
    #: The number of the current or last try; with job and worker it is the fencing token.
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    #: NULL: as many as the action allows.
    max_attempts: Mapped[int | None]
    #: How often a worker was lost in the middle of it.
    crashes: Mapped[int] = mapped_column(server_default=text("0"))
    #: How often it was asked to wait, without using an attempt, since it was accepted or retried by hand.
    snoozes: Mapped[int] = mapped_column(server_default=text("0"))
    #: How many steps it has finished.
    steps: Mapped[int] = mapped_column(server_default=text("0"))
    #: {done, total, message}
    progress: Mapped[dict[str, Any] | None]
    result: Mapped[Any | None]
    #: A problem object (RFC 9457) about the last try that failed, or was asked to wait.
    error: Mapped[dict[str, Any] | None]
    #: Where it happened; shown only to those who ask for it.
    traceback: Mapped[str | None]
    queue: Mapped[str]
    priority: Mapped[int]
    lock: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    schedule_at: Mapped[datetime | None]
    #: A run that has not started by then fails.
    start_deadline: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    #: When somebody had seen enough of its failure. It stays in the ledger, and is no dead letter any more.
    discarded_at: Mapped[datetime | None]
    #: Of a failed run that nobody has discarded: which failures are like this one.
    fingerprint: Mapped[str | None]
    #: Procrastinate's id of the worker that holds it, or held it last.
    worker_id: Mapped[int | None] = mapped_column(BigInteger)
    parent_id: Mapped[str | None] = mapped_column(ID)
    replay_of: Mapped[str | None] = mapped_column(ID)
    #: The endpoint that is told of its end, whatever it wants to be told else.
    webhook: Mapped[str | None] = mapped_column(ID)
    #: W3C trace context of the request that asked for it.
    trace_context: Mapped[dict[str, Any] | None]
    #: The `seq` of the newest event.
    last_seq: Mapped[int] = mapped_column(server_default=text("1"))


class RunEvent(Base):
    """One line of a run's history. `seq` counts from 1 without a gap, under the run's row lock.

    No foreign key: events are written only by statements that hold the run's row, in batches where a check a row costs.
    """

    __tablename__ = "run_events"
    __table_args__ = (CheckConstraint("type IN ('state', 'progress', 'log', 'step')", name="type"),)

    run_id: Mapped[str] = mapped_column(ID, primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    type: Mapped[str]
    data: Mapped[dict[str, Any]]


class RunStep(Base):
    """A named checkpoint inside a run: performed once, however many attempts the run takes."""

    __tablename__ = "run_steps"

    run_id: Mapped[str] = mapped_column(ID, ForeignKey("action_runs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    #: The attempt that performed it.
    attempt: Mapped[int]
    result: Mapped[Any | None]
    finished_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))


class RunChild(Base):
    """A run that another has spawned: once, however many attempts that one takes."""

    __tablename__ = "run_children"
    __table_args__ = (
        Index(None, "parent_id", "job_id"),
        Index("ix_run_children_awaited", "parent_id", postgresql_where=text("is_awaited")),
    )

    parent_id: Mapped[str] = mapped_column(ID, primary_key=True)
    #: The parent's name for it.
    key: Mapped[str] = mapped_column(primary_key=True)
    child_id: Mapped[str] = mapped_column(ID, unique=True)
    job_id: Mapped[int] = mapped_column(BigInteger)
    #: Whether its end is one of those that the parent waits for.
    is_awaited: Mapped[bool] = mapped_column(server_default=text("false"))


class RunWait(Base):
    """What a run waits for: its awaited children, or a signal. Gone when that has come."""

    __tablename__ = "run_waits"

    run_id: Mapped[str] = mapped_column(ID, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigInteger)
    #: Of children: "cancel" (the first that fails is enough) or "continue".
    policy: Mapped[str | None]
    signal: Mapped[str | None]
    #: When it has waited for the signal for long enough. NULL: never.
    until: Mapped[datetime | None]


class RunSignal(Base):
    """What a run was told from outside, the first time that it was told under that name."""

    __tablename__ = "run_signals"

    run_id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[Any] = mapped_column(JSONB())
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class RunTag(Base):
    """Which runs have a tag, in the order in which they were accepted."""

    __tablename__ = "run_tags"

    tag: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)


class IdempotencyKey(Base):
    """A submission that can be sent again: the run that it made the first time. Kept for a day or more."""

    __tablename__ = "idempotency_keys"

    principal: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    #: SHA-256 of what was sent.
    fingerprint: Mapped[str]
    job_id: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"), index=True)


class UniqueRun(Base):
    """The newest run of a unique key. Its row is locked by whoever submits under that key."""

    __tablename__ = "unique_runs"

    #: Empty: of nobody.
    owner: Mapped[str] = mapped_column(primary_key=True)
    action: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    #: NULL: its first run is being submitted.
    job_id: Mapped[int | None] = mapped_column(BigInteger, index=True)


class Schedule(Base):
    """When the jobs of a schedule were last deferred. Whoever moves `last_tick` on inserts them, in one transaction.

    One that is declared in code has no `params`; one that was created through the API has its name as `periodic_id`.
    """

    __tablename__ = "schedules"
    __table_args__ = (Index(None, "periodic_id", unique=True, postgresql_where=text("params IS NOT NULL")),)

    task_name: Mapped[str] = mapped_column(primary_key=True)
    periodic_id: Mapped[str] = mapped_column(primary_key=True)
    cron: Mapped[str]
    zone: Mapped[str]
    last_tick: Mapped[datetime] = mapped_column(server_default=text("now()"))
    params: Mapped[dict[str, Any] | None]
    #: "skip", "one", or a number: up to so many.
    missed: Mapped[Any | None]
    #: Who sees its runs.
    owner: Mapped[str | None]
    created_by: Mapped[str | None]
    paused_at: Mapped[datetime | None]
    paused_by: Mapped[str | None]
