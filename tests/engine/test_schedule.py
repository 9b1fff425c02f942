"""Schedules: one run a tick, by the clocks of a zone, and missed ticks by policy."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from procrastinate import jobs
from tests.support.eventually import eventually
from tests.support.workshop import Workshop

from app.engine.schedule import AllUpTo, Missed, Schedule, Scheduler


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def scheduled(cron: str, zone: str = "UTC", missed: Missed = AllUpTo(100)) -> Schedule:
    return Schedule(
        "nightly",
        "",
        cron,
        zone,
        missed,
        lambda: jobs.Job(queue="q", lock=None, queueing_lock=None, task_name="nightly"),
    )


@pytest.mark.parametrize(
    ("cron", "after", "now", "ticks"),
    [
        pytest.param(
            "30 2 * * *", "2026-03-28T12:00", "2026-03-30T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"],
            id="half past two does not exist on the night of spring: it comes at three",
        ),
        pytest.param(
            "30 2 * * *", "2026-10-24T12:00", "2026-10-26T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"],
            id="half past two comes twice on the night of autumn: the first counts",
        ),
        pytest.param(
            "0 * * * *", "2026-10-24T23:30", "2026-10-25T02:30",
            ["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"],
            id="every hour is every hour, in autumn too",
        ),
    ],
)  # fmt: skip
def test_ticks_follow_the_clocks_of_the_zone(cron: str, after: str, now: str, ticks: list[str]) -> None:
    schedule = scheduled(cron, "Europe/Berlin")
    assert schedule.due(at(after), at(now))[0] == [at(tick) for tick in ticks]
    following, found = at(after), list[datetime]()
    while (following := schedule.next_after(following)) <= at(now):
        found.append(following)
    assert found == [at(tick) for tick in ticks], "forwards as backwards"


@pytest.mark.parametrize(
    ("missed", "fired"),
    [
        ("skip", []),
        ("one", ["2026-01-01T03:00"]),
        (AllUpTo(2), ["2026-01-01T02:00", "2026-01-01T03:00"]),
        (AllUpTo(9), ["2026-01-01T01:00", "2026-01-01T02:00", "2026-01-01T03:00"]),
    ],
)
def test_missed_ticks_follow_the_policy(missed: Missed, fired: list[str]) -> None:
    ticks, newest = scheduled("0 * * * *", missed=missed).due(at("2026-01-01T00:00"), at("2026-01-01T03:30"))
    assert ticks == [at(tick) for tick in fired]
    assert newest == at("2026-01-01T03:00"), "whatever is fired, it is over"


@pytest.mark.parametrize("missed", ["skip", "one", AllUpTo(5)])
def test_a_tick_that_has_just_come_is_fired_by_every_policy(missed: Missed) -> None:
    schedule = scheduled("0 * * * *", missed=missed)
    assert schedule.due(at("2026-01-01T02:00"), at("2026-01-01T03:00"))[0] == [at("2026-01-01T03:00")]
    assert schedule.due(at("2026-01-01T03:00"), at("2026-01-01T03:00")) == ([], None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cron": "every day"}, "is no cron"),
        ({"cron": "0 2 * * *", "zone": "Berlin"}, "there is no zone 'Berlin'"),
        ({"cron": "0 2 * * *", "missed": "all"}, "missed is"),
        ({"cron": "0 2 * * *", "missed": AllUpTo(0)}, "missed is"),
    ],
)
def test_what_no_worker_could_understand_is_refused_at_once(
    workshop: Workshop, options: dict[str, Any], said: str
) -> None:
    @workshop.action()
    async def nightly(timestamp: int) -> int:
        return timestamp

    with pytest.raises(ValueError, match=said):
        workshop.queue.periodic(**options)(nightly)


async def every_second(workshop: Workshop, *, missed: Missed = AllUpTo(1000), **options: Any) -> list[Schedule]:
    @workshop.queue.periodic(cron="* * * * * *", missed=missed, **options)
    @workshop.action(queue="clock")
    async def tick(timestamp: int) -> int:
        return timestamp

    return workshop.queue.schedules


async def back(workshop: Workshop, seconds: int) -> None:
    """As if nobody had looked for so long."""
    await workshop.execute(
        "UPDATE schedules SET last_tick = date_trunc('second', now()) - :seconds * interval '1 second'", seconds=seconds
    )


async def fired(workshop: Workshop) -> list[int]:
    rows = await workshop.fetch("SELECT params FROM action_runs ORDER BY job_id")
    return [row["params"]["timestamp"] for row in rows]


async def test_a_new_schedule_begins_now(workshop: Workshop) -> None:
    scheduler = Scheduler(workshop.queue.connector, await every_second(workshop), workshop.queue.tasks)
    assert 0 < await scheduler.fire_due() <= 1
    assert len(await fired(workshop)) <= 1


async def test_schedulers_that_race_fire_every_tick_once(workshop: Workshop) -> None:
    schedules = await every_second(workshop)
    schedulers = [Scheduler(workshop.queue.connector, schedules, workshop.queue.tasks) for _ in range(3)]
    await schedulers[0].fire_due()
    await workshop.execute("DELETE FROM action_runs")
    await back(workshop, 30)
    for _ in range(10):
        await asyncio.gather(*(scheduler.fire_due() for scheduler in schedulers))
    ticks = await fired(workshop)
    assert len(ticks) >= 30
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))


async def test_a_tick_is_a_run_like_any_other_and_is_performed_by_a_worker(workshop: Workshop) -> None:
    await every_second(workshop, missed="one")
    async with workshop.working():
        run_id = await _first_run(workshop)
        run = await workshop.get(run_id)
        run = await workshop.reaches(run, "succeeded")
    assert run.queue == "clock"
    assert run.result == run.params["timestamp"]


async def _first_run(workshop: Workshop) -> str:
    return await eventually(lambda: workshop.value("SELECT id FROM action_runs LIMIT 1"))


async def test_a_tick_whose_job_cannot_be_inserted_is_not_lost(workshop: Workshop) -> None:
    scheduler = Scheduler(workshop.queue.connector, await every_second(workshop, missed="one"), workshop.queue.tasks)
    await scheduler.fire_due()
    await workshop.execute("DELETE FROM action_runs")
    await back(workshop, 5)
    before = await workshop.value("SELECT last_tick FROM schedules")
    await workshop.execute("ALTER TABLE procrastinate_jobs ADD CONSTRAINT none CHECK (false) NOT VALID")
    await scheduler.fire_due()
    assert await workshop.value("SELECT last_tick FROM schedules") == before
    await workshop.execute("ALTER TABLE procrastinate_jobs DROP CONSTRAINT none")
    await scheduler.fire_due()
    assert len(await fired(workshop)) == 1


async def test_a_tick_whose_queueing_lock_is_taken_is_over_without_a_run(workshop: Workshop) -> None:
    scheduler = Scheduler(
        workshop.queue.connector, await every_second(workshop, queueing_lock="one waits"), workshop.queue.tasks
    )
    await scheduler.fire_due()
    await back(workshop, 5)
    await scheduler.fire_due()
    assert await workshop.value("SELECT count(*) FROM procrastinate_jobs") == 1


async def test_a_schedule_that_has_changed_begins_anew(workshop: Workshop) -> None:
    schedules = await every_second(workshop)
    await Scheduler(workshop.queue.connector, schedules, workshop.queue.tasks).fire_due()
    await back(workshop, 3600)
    changed = Schedule("tick", "", "0 0 1 1 *", "UTC", "one", schedules[0].template)
    await workshop.execute("DELETE FROM action_runs")
    await Scheduler(workshop.queue.connector, [changed], workshop.queue.tasks).fire_due()
    assert await fired(workshop) == []


async def test_schedules_of_other_code_are_left_alone(workshop: Workshop) -> None:
    await workshop.execute(
        "INSERT INTO schedules VALUES ('of another version', '', '* * * * *', 'UTC', now() - interval '1 day')"
    )
    await Scheduler(workshop.queue.connector, await every_second(workshop), workshop.queue.tasks).fire_due()
    assert await workshop.value("SELECT last_tick < now() - interval '1 hour' FROM schedules ORDER BY 1 DESC")
