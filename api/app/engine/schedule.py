"""Schedules: one run a tick, whatever pauses, crashes or duplicates of workers."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterBadCronError, CroniterBadDateError, CroniterError, croniter
from procrastinate import exceptions, jobs
from procrastinate.tasks import Task

from app.engine import queries
from app.engine.report import one_line

logger = logging.getLogger(__name__)

LATE = timedelta(minutes=1)
"""What `missed="skip"` calls missed: a tick that nobody could fire for this long."""
LONGEST_SLEEP_SECONDS = 5.0
"""How soon a schedule that somebody has created begins."""


@dataclass(frozen=True)
class AllUpTo:
    """Of the ticks that were missed, the newest `count`, the oldest of them first."""

    count: int


Missed = Literal["skip", "one"] | AllUpTo
"""What happens to ticks that nobody could fire: no run; one run, of the newest; or a run each, up to a number."""


@dataclass(frozen=True)
class Schedule:
    """When a task is deferred.

    `cron` has five fields, or six, the last being seconds. It is read by the clocks of `zone`: a tick within the hour
    that is skipped in spring comes right after it; one within the hour that comes twice in autumn comes once, unless
    the cron names no hour (`*`).
    """

    task_name: str
    periodic_id: str
    cron: str
    zone: str
    missed: Missed
    template: Callable[[], jobs.Job]
    """The job of a tick, which then also gets `timestamp`."""

    def check(self) -> None:
        """Refuse what no worker could understand.

        Raises:
            ValueError: the message names what is wrong.
        """
        try:
            check_cron(self.cron)
            check_zone(self.zone)
        except ValueError as error:
            raise ValueError(f"The schedule of {self.task_name!r}: {error}") from None
        match self.missed:
            case "skip" | "one":
                pass
            case AllUpTo(count=count) if count > 0:
                pass
            case _:
                raise ValueError(f"The schedule of {self.task_name!r}: missed is 'skip', 'one' or AllUpTo(1 or more).")

    @property
    def name(self) -> str:
        """What it is called by those who look at it."""
        return f"{self.task_name}:{self.periodic_id}" if self.periodic_id else self.task_name

    def due(self, after: datetime, now: datetime) -> tuple[list[datetime], datetime | None]:
        """The ticks to fire, the oldest first, and the newest tick after `after` if there is any, fired or not."""
        newest = next(self._backwards(now, after), None)
        match self.missed:
            case "skip":
                return ([newest] if newest and now - newest < LATE else []), newest
            case "one":
                return ([newest] if newest else []), newest
            case AllUpTo(count=count):
                ticks = [tick for _, tick in zip(range(count), self._backwards(now, after), strict=False)]
                return ticks[::-1], newest

    def next_after(self, now: datetime) -> datetime:
        """The first tick after `now`."""
        clock = croniter(self.cron, now.astimezone(ZoneInfo(self.zone)))
        while True:
            tick = clock.get_next(datetime)
            if not self._comes_again(tick):
                return tick.astimezone(UTC)

    def _backwards(self, now: datetime, after: datetime) -> Iterator[datetime]:
        # From the newest: after a long outage there may be millions, and few are wanted.
        clock = croniter(self.cron, (now + timedelta(microseconds=1)).astimezone(ZoneInfo(self.zone)))
        while (tick := clock.get_prev(datetime)).astimezone(UTC) > after:
            if not self._comes_again(tick):
                yield tick.astimezone(UTC)

    def _comes_again(self, tick: datetime) -> bool:
        """Whether these clocks have shown that time before, an hour ago."""
        return tick.astimezone(UTC).astimezone(ZoneInfo(self.zone)).fold == 1 and "*" not in self.cron.split()[1]


def check_cron(cron: str) -> None:
    """Refuse a cron that no worker could understand.

    Raises:
        ValueError: it has not five or six fields, or they mean nothing, or nothing that ever comes.
    """
    try:
        # croniter's "R" is chance: it would say something else each time it is read.
        if len(cron.split()) not in (5, 6) or re.search(r"(^|[\s,])[rR]", cron):
            raise CroniterBadCronError("five fields, or six, the last being seconds")
        croniter(cron).get_next()
    except CroniterBadDateError:
        raise ValueError(f"{cron!r} never comes.") from None
    except CroniterError as error:
        raise ValueError(f"{cron!r} is no cron: {error}") from None


def check_zone(zone: str) -> None:
    """Refuse a zone that there is not.

    Raises:
        ValueError: it is no IANA name.
    """
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no zone {zone!r}; say Europe/Berlin, or UTC.") from None


class Scheduler:
    """Fires what is due. Every worker has one; the database lets one of them fire each tick, and its clock decides.

    Args:
        schedules: those that the code declares. Others are read from the database at each look.
        tasks: the tasks that these can be of.
    """

    def __init__(
        self,
        database: queries.Database,
        schedules: Sequence[Schedule],
        tasks: Mapping[str, Task[..., Any, ...]],
    ) -> None:
        self._database = database
        self._schedules = {(schedule.task_name, schedule.periodic_id): schedule for schedule in schedules}
        self._tasks = tasks
        self._is_registered = False

    async def run(self) -> NoReturn:
        """Fire ticks until cancelled."""
        while True:
            pause = await self.fire_due()
            await asyncio.sleep(min(pause, LONGEST_SLEEP_SECONDS))

    async def fire_due(self) -> float:
        """Fire the ticks that have come since somebody last did.

        Returns:
            Seconds until the next.
        """
        if self._schedules and not self._is_registered:
            names = [(schedule.task_name, schedule.periodic_id) for schedule in self._schedules.values()]
            crons = [(schedule.cron, schedule.zone) for schedule in self._schedules.values()]
            await queries.register_schedules(self._database, names=names, crons=crons)
            self._is_registered = True
        seconds = LONGEST_SLEEP_SECONDS
        for row in await queries.list_schedules(self._database):
            if schedule := self._schedule(row):
                try:
                    await self._fire(schedule, row["last_tick"], row["now"])
                except exceptions.ConnectorException as error:
                    # Its tick is still to come; the others need not wait for it.
                    logger.warning("The tick of %s could not be fired: %s", schedule.task_name, one_line(error))
                    seconds = min(seconds, 1)
                seconds = min(seconds, (schedule.next_after(row["now"]) - row["now"]).total_seconds())
        return seconds

    def _schedule(self, row: dict[str, Any]) -> Schedule | None:
        """What a row stands for; `None` if this worker does not know it."""
        if row["params"] is None:
            return self._schedules.get((row["task_name"], row["periodic_id"]))
        task = self._tasks.get(row["task_name"])
        if task is None:
            return None
        schedule = created(row, lambda: task.configure(task_kwargs=row["params"]).job)
        try:
            schedule.check()
        except ValueError as error:
            logger.warning("A schedule cannot be understood: %s", error)
            return None
        return schedule

    async def _fire(self, schedule: Schedule, last_tick: datetime, now: datetime) -> None:
        ticks, newest = schedule.due(last_tick, now)
        if newest is not None:
            job = schedule.template()
            fired = await queries.fire_schedule(
                self._database,
                name=(schedule.task_name, schedule.periodic_id),
                before=last_tick,
                newest=newest,
                ticks=[int(tick.timestamp()) for tick in ticks],
                queue=job.queue,
                priority=job.priority,
                lock=job.lock,
                queueing_lock=job.queueing_lock,
                args=json.dumps(job.task_kwargs),
            )
            if fired:
                logger.info("Fired %d ticks of %s", fired, schedule.task_name)


def created(row: Mapping[str, Any], template: Callable[[], jobs.Job]) -> Schedule:
    """The schedule in a row that somebody has created."""
    missed: Missed = row["missed"] if isinstance(row["missed"], str) else AllUpTo(row["missed"])  # pyright: ignore[reportAssignmentType]
    return Schedule(row["task_name"], row["periodic_id"], row["cron"], row["zone"], missed, template)
