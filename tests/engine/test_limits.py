"""Limits: how long an attempt may take, how often a worker may be lost, and when a run must have begun."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.eventually import eventually
from tests.support.workshop import Workshop

from app.engine.endings import Released
from app.engine.finisher import Finisher
from app.engine.rescue import Rescue
from app.engine.retry import Retry
from app.runs.context import Run


async def test_an_attempt_that_overruns_its_timeout_fails_as_such(workshop: Workshop) -> None:
    @workshop.action(timeout=0.05, retry=Retry(max_attempts=1))
    async def endless() -> None:
        await asyncio.Event().wait()

    run = await workshop.submit("endless")
    await workshop.drain()
    run = await workshop.get(run)
    assert run.error is not None
    assert (run.state, run.error["type"]) == ("failed", "/problems/timeout")


async def test_an_overrun_is_retried_like_any_failure(workshop: Workshop) -> None:
    @workshop.action(timeout=0.05, retry=Retry(max_attempts=2, base=0))
    async def slow_at_first(run: Run) -> int:
        if run.attempt == 1:
            await asyncio.Event().wait()
        return run.attempt

    run = await workshop.submit("slow_at_first")
    await workshop.drain()
    assert (await workshop.get(run)).result == 2


async def test_a_run_that_asks_for_more_time_gets_it(workshop: Workshop) -> None:
    @workshop.action(timeout=0.05, retry=Retry(max_attempts=1))
    async def long(run: Run) -> str:
        run.extend(60)
        # Longer than the timeout was, by the same clock.
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, passed.set)
        await passed.wait()
        return "in time"

    run = await workshop.submit("long")
    await workshop.drain()
    assert (await workshop.get(run)).result == "in time"


async def test_an_attempt_that_ends_in_time_is_not_touched_by_its_timeout(workshop: Workshop) -> None:
    @workshop.action(timeout=60)
    async def quick() -> str:
        return "done"

    run = await workshop.submit("quick")
    await workshop.drain()
    assert (await workshop.get(run)).result == "done"


async def test_an_action_that_ignores_its_timeout_is_given_up_and_its_worker_stops(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.performance.STUCK_SECONDS", 0.05)
    release = asyncio.Event()

    @workshop.action(timeout=0.05, retry=Retry(max_attempts=1))
    async def deaf() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    run = await workshop.submit("deaf")
    async with workshop.working() as worker:
        await workshop.reaches(run, "failed")
        await eventually(lambda: _is(worker.has_stuck_job))
    release.set()


async def _is(answer: bool) -> bool:
    return answer


def test_a_timeout_of_nothing_is_refused_at_once(workshop: Workshop) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        workshop.action(timeout=0)


async def test_a_run_that_was_taken_away_is_stopped(workshop: Workshop) -> None:
    """Somebody took this worker for dead: what it still does would be done twice."""
    started, stopped = asyncio.Event(), asyncio.Event()

    @workshop.action()
    async def long() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise

    run = await workshop.submit("long")
    async with workshop.working():
        await started.wait()
        await workshop.execute("UPDATE procrastinate_jobs SET status = 'failed'")
        await asyncio.wait_for(stopped.wait(), 20)
    assert (await workshop.get(run)).state == "failed"


async def test_of_runs_on_their_last_life_a_worker_performs_one_at_a_time(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them kills workers. If they die apart, only that one is blamed."""
    at_once: list[int] = []
    going = 0
    put_back: list[int] = []
    put = Finisher.put

    def note(self: Finisher, context: object, ending: object) -> None:
        if isinstance(ending, Released):
            put_back.append(1)
        put(self, context, ending)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Finisher, "put", note)

    @workshop.action()
    async def suspect() -> None:
        nonlocal going
        going += 1
        at_once.append(going)
        await asyncio.sleep(0)
        going -= 1

    runs = [await workshop.submit("suspect") for _ in range(3)]
    await workshop.execute("UPDATE action_runs SET crashes = 2")
    await workshop.drain_all()
    assert {(await workshop.get(run)).state for run in runs} == {"succeeded"}
    assert at_once == [1, 1, 1]
    assert put_back


async def test_while_a_run_on_its_last_life_is_performed_its_worker_holds_no_other(workshop: Workshop) -> None:
    """What it holds when it is killed is blamed, begun or not."""
    held: list[int] = []

    @workshop.action()
    async def suspect() -> None:
        held.append(await workshop.value("SELECT count(*) FROM procrastinate_jobs WHERE status = 'doing'"))

    for _ in range(3):
        await workshop.submit("suspect")
    await workshop.execute("UPDATE action_runs SET crashes = 2")
    await workshop.drain_all()
    assert held == [1, 1, 1]


async def test_a_run_that_had_to_begin_earlier_fails_when_it_is_claimed(workshop: Workshop) -> None:
    begun: list[int] = []

    @workshop.action(retry=Retry(max_attempts=5))
    async def late() -> None:
        begun.append(1)

    run = await workshop.submit("late")
    await workshop.execute("UPDATE action_runs SET start_deadline = now() - interval '2 hours'")
    await workshop.drain()
    run = await workshop.get(run)
    assert run.error is not None
    assert (run.state, run.error["type"], begun) == ("failed", "/problems/too-late", [])


async def test_a_run_that_had_to_begin_by_now_fails_in_the_next_sweep(workshop: Workshop) -> None:
    @workshop.action()
    async def late() -> None: ...

    run, in_time = await workshop.submit("late"), await workshop.submit("late")
    await workshop.execute(
        "UPDATE action_runs SET start_deadline = now() - interval '1 second' WHERE id = :id", id=run.id
    )
    await Rescue(workshop.queue.connector, lease=30, crash_cap=3).sweep()
    assert (await workshop.get(run)).state == "failed"
    assert (await workshop.states(run))[-1] == "failed"
    assert (await workshop.get(in_time)).state == "queued"


async def test_a_retry_is_not_too_late(workshop: Workshop) -> None:
    @workshop.action(retry=Retry(max_attempts=2, base=0))
    async def second_time(run: Run) -> int:
        await workshop.execute("UPDATE action_runs SET start_deadline = now() - interval '1 second'")
        if run.attempt == 1:
            raise ValueError
        return run.attempt

    run = await workshop.submit("second_time")
    await workshop.drain()
    assert (await workshop.get(run)).result == 2


async def test_a_scheduled_run_waits_in_line_when_its_time_has_come(workshop: Workshop) -> None:
    @workshop.action()
    async def fine() -> None: ...

    run = await workshop.submit("fine")
    await workshop.execute("UPDATE procrastinate_jobs SET scheduled_at = now() + interval '1 day'")
    assert (await workshop.get(run)).state == "scheduled"
    await workshop.execute("UPDATE procrastinate_jobs SET scheduled_at = now() - interval '1 second'")
    async with workshop.working():
        run = await workshop.reaches(run, "succeeded")
    assert run.schedule_at is not None, "it goes on to tell which time that was"


async def test_a_worker_that_cannot_be_rescued_holds_up_no_other(workshop: Workshop) -> None:
    @workshop.action()
    async def fine() -> None: ...

    runs = [await workshop.submit("fine") for _ in range(3)]
    worker = await workshop.queue.job_manager.register_worker()
    await workshop.execute("UPDATE procrastinate_jobs SET status = 'doing', worker_id = :id", id=worker)
    await workshop.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
    first = await workshop.value("SELECT min(id) FROM procrastinate_jobs")
    await workshop.execute(
        f"ALTER TABLE procrastinate_jobs ADD CONSTRAINT no_rescue CHECK (id <> {first} OR status = 'doing') NOT VALID"
    )
    rescued = await Rescue(workshop.queue.connector, lease=30, crash_cap=3).sweep()
    assert len(rescued) == 2
    assert [(await workshop.get(run)).state for run in runs] == ["running", "retrying", "retrying"]
