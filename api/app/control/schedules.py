"""What can be done with schedules: those that the code declares, and those that callers create."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from cron_descriptor import FormatException, MissingFieldException, get_description
from procrastinate.jobs import Job
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app.control import queries
from app.control.schemas import ScheduleCreate, ScheduledRun, ScheduleList, SchedulePauseRead, ScheduleRead
from app.engine.schedule import AllUpTo, Schedule, created
from app.errors import ScheduleDeclared, ScheduleExists, ScheduleNotFound
from app.outbound.postgres.database import autocommit
from app.runs import submission
from app.runs.actions import Actions
from app.runs.intake import Intake
from app.runs.schemas import RunCreate, RunRead
from app.runs.state import RunState
from app.runs.submission import Origin

FIRES = 5
LAST_RUNS = 5
LONGEST_TAG = 64


@dataclass(frozen=True)
class Schedules:
    """The schedules that can be looked at and changed.

    `declared` are those of the code; `actions` are what callers can schedule.
    """

    engine: AsyncEngine
    actions: Actions
    declared: Sequence[Schedule] = field(default_factory=tuple)

    async def list_all(self) -> ScheduleList:
        """Every schedule, by name."""
        return ScheduleList(items=[_read(known) for known in await self._known(None)])

    async def get(self, name: str) -> ScheduleRead:
        """One schedule.

        Raises:
            ScheduleNotFound: here and below, there is none of that name.
        """
        return _read(await self._named(name))

    async def create(self, request: ScheduleCreate, *, owner: str | None, actor: str) -> ScheduleRead:
        """Create a schedule, which begins now.

        Args:
            owner: whose its runs are.

        Raises:
            UnknownAction: there is no such action.
            InvalidInput: the params do not fit its input.
            ScheduleExists: the name is taken.
        """
        params = self.actions.named(request.action).check(request.params)
        is_free = request.name not in self.actions and request.name not in {each.name for each in self.declared}
        async with self.engine.begin() as connection:
            if not is_free or not await queries.insert_schedule(
                connection,
                name=request.name,
                task_name=request.action,
                cron=request.cron,
                zone=request.zone,
                params=params,
                missed=request.missed,
                owner=owner,
                actor=actor,
            ):
                raise ScheduleExists(detail="There is a schedule or an action of that name.")
        return await self.get(request.name)

    async def delete(self, name: str) -> None:
        """Delete a schedule that somebody has created. Its runs stay.

        Raises:
            ScheduleDeclared: the code declares it.
        """
        if (await self._named(name)).is_declared:
            raise ScheduleDeclared(detail="The code declares this schedule. It can be paused.")
        async with self.engine.begin() as connection:
            await queries.delete_schedule(connection, name=name)

    async def run(self, intake: Intake, name: str, *, trace_context: dict[str, str] | None) -> RunRead:
        """Perform the action of a schedule now, as if a tick had come. Its ticks come all the same.

        Raises:
            UnknownAction: it is not of an action.
            AlreadyQueued: a run with its queueing lock is waiting.
        """
        known = await self._named(name)
        job = known.schedule.template()
        stamp = {"timestamp": int(known.now.timestamp())} if known.is_declared else {}
        request = RunCreate(
            action=known.schedule.task_name,
            params={**job.task_kwargs, **stamp},
            queue=job.queue,
            priority=job.priority,
            lock=job.lock,
            queueing_lock=job.queueing_lock,
            tags=[f"schedule:{name}"[:LONGEST_TAG]],
        )
        owner = None if known.row is None else known.row.owner
        return await submission.submit(
            intake, self.actions.named(request.action), request, Origin(owner, trace_context)
        )

    async def pause(self, name: str, *, actor: str) -> ScheduleRead:
        """Let no worker fire a schedule until somebody resumes it."""
        schedule = (await self._named(name)).schedule
        async with self.engine.begin() as connection:
            await queries.pause_schedule(
                connection,
                task_name=schedule.task_name,
                periodic_id=schedule.periodic_id,
                cron=schedule.cron,
                zone=schedule.zone,
                actor=actor,
            )
        return await self.get(name)

    async def resume(self, name: str) -> ScheduleRead:
        """Let workers fire a schedule again, from now on: the ticks of the pause are over."""
        schedule = (await self._named(name)).schedule
        async with self.engine.begin() as connection:
            await queries.resume_schedule(connection, task_name=schedule.task_name, periodic_id=schedule.periodic_id)
        return await self.get(name)

    async def _named(self, name: str) -> _Known:
        for known in await self._known(name):
            return known
        raise ScheduleNotFound(detail="There is no schedule of that name.")

    async def _known(self, name: str | None) -> list[_Known]:
        async with autocommit(self.engine).connect() as connection:
            rows = await queries.list_schedules(connection, runs=LAST_RUNS, name=name)
        return sorted(self._joined(rows, name), key=lambda known: known.name)

    def _joined(self, rows: Sequence[Row[Any]], name: str | None) -> Iterator[_Known]:
        """Of the code, with what the database says of them; and those of the database alone."""
        of_code = {row.name: row for row in rows if row.params is None}
        for schedule in self.declared:
            if name in (None, schedule.name):
                yield _Known(schedule, of_code.get(schedule.name), is_declared=True)
        for row in rows:
            if row.params is not None:
                yield _Known(created(dict(row._mapping), functools.partial(self._job, row)), row, is_declared=False)

    def _job(self, row: Row[Any]) -> Job:
        return self.actions.named(row.task_name).task.configure(task_kwargs=row.params).job


@dataclass(frozen=True)
class _Known:
    """A schedule, and what the database says of it; `None` if no worker has registered it yet."""

    schedule: Schedule
    row: Row[Any] | None
    is_declared: bool

    @property
    def name(self) -> str:
        return self.schedule.name if self.is_declared else self.schedule.periodic_id

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) if self.row is None else self.row.now


def _read(known: _Known) -> ScheduleRead:
    schedule, row = known.schedule, known.row
    paused = None if row is None or row.paused_at is None else SchedulePauseRead(by=row.paused_by, at=row.paused_at)
    return ScheduleRead(
        name=known.name,
        action=schedule.task_name,
        params=schedule.template().task_kwargs if known.is_declared or row is None else row.params,
        cron=schedule.cron,
        description=describe_cron(schedule.cron),
        zone=schedule.zone,
        missed=schedule.missed.count if isinstance(schedule.missed, AllUpTo) else schedule.missed,
        is_declared=known.is_declared,
        created_by=None if row is None else row.created_by,
        next=[] if paused else list(_fires(schedule, known.now)),
        last_tick=None if row is None else row.last_tick,
        last_runs=[]
        if row is None
        else [
            ScheduledRun(id=run["id"], state=RunState(run["state"]), created_at=run["created_at"])
            for run in row.last_runs
        ],
        paused=paused,
    )


def _fires(schedule: Schedule, now: datetime) -> Iterator[datetime]:
    try:
        schedule.check()
    except ValueError:
        # SQL can make anything of a row. Workers leave such a schedule alone.
        return
    for _ in range(FIRES):
        now = schedule.next_after(now)
        # As the clocks of its zone show it.
        yield now.astimezone(ZoneInfo(schedule.zone))


def describe_cron(cron: str) -> str:
    """What a cron says, in words; the cron itself if there are none."""
    fields = cron.split()
    # The seconds are the last of our six, and the first of theirs.
    theirs = [fields[5], *fields[:5]] if len(fields) == 6 else fields
    try:
        return get_description(" ".join(theirs))
    except (FormatException, MissingFieldException):
        return cron
