"""A run that is asked to wait is snoozed: it waits, and no attempt is used. Not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Status
from tests.support.workshop import Workshop

from app.engine import queries
from app.engine.finisher import Finisher
from app.engine.rescue import Rescue
from app.engine.retry import Retry
from app.errors import RateLimited, RunLost, Unavailable
from app.runs import service
from app.runs.context import Run
from app.runs.schemas import RunCreate, RunRead

AT_ONCE = Retry(max_attempts=1, base=0)


def limited(workshop: Workshop, *raised: Exception, retry: Retry = AT_ONCE) -> list[int]:
    """An action `ask` that raises these, one a time, and then succeeds; its list gets the attempt of each time."""
    attempts: list[int] = []

    @workshop.action(retry=retry)
    async def ask(run: Run) -> str:
        attempts.append(run.attempt)
        if len(attempts) <= len(raised):
            raise raised[len(attempts) - 1]
        return "answered"

    return attempts


def busy(seconds: float = 600) -> RateLimited:
    return RateLimited("It answered 429.", retry_after=seconds)


async def snoozes(workshop: Workshop) -> int:
    return await workshop.value("SELECT snoozes FROM action_runs")


async def test_a_run_that_is_asked_to_wait_waits_and_uses_no_attempt(workshop: Workshop) -> None:
    attempts = limited(workshop, *[busy()] * 7)
    run = await workshop.submit("ask")
    await workshop.drain()

    waiting = await workshop.get(run)
    assert (waiting.state, waiting.attempt, waiting.finished_at) == ("scheduled", 0, None)
    assert waiting.error == {"type": "/problems/rate-limited", "title": "Rate limited", "detail": "It answered 429."}
    assert await workshop.value(
        "SELECT schedule_at BETWEEN now() + interval '595 seconds' AND now() + interval '661 seconds' FROM action_runs"
    )
    await workshop.drain_all()
    run = await workshop.get(run)
    assert (run.state, run.result, run.attempt, run.error) == ("succeeded", "answered", 1, None)
    assert attempts == [1] * 8
    assert await snoozes(workshop) == 7


async def test_a_task_group_of_the_action_is_asked_to_wait_like_the_action_itself(workshop: Workshop) -> None:
    limited(workshop, ExceptionGroup("unhandled errors in a TaskGroup", [busy(5), busy(600)]))
    run = await workshop.submit("ask")
    await workshop.drain()
    waiting = await workshop.get(run)
    assert (waiting.state, waiting.attempt) == ("scheduled", 0)
    assert waiting.error is not None
    assert waiting.error["detail"] == "Rate limited: It answered 429.; Rate limited: It answered 429."
    assert await workshop.value("SELECT schedule_at > now() + interval '595 seconds' FROM action_runs")
    await workshop.drain_all()
    assert ((await workshop.get(run)).attempt, await snoozes(workshop)) == (1, 1)


async def test_its_history_says_that_it_was_asked_to_wait_and_until_when(workshop: Workshop) -> None:
    limited(workshop, busy())
    run = await workshop.submit("ask")
    await workshop.drain()
    told = (await workshop.events(run, "state"))[-1]["data"]
    until = (await workshop.get(run)).schedule_at
    assert datetime.fromisoformat(told.pop("schedule_at")) == until
    assert told.pop("error")["detail"] == "It answered 429."
    assert told == {"state": "scheduled", "attempt": 0, "snoozes": 1}
    await workshop.drain_all()
    assert "snoozes" not in (await workshop.events(run, "state"))[-1]["data"]


async def test_attempts_that_failed_count_and_those_between_them_do_not(workshop: Workshop) -> None:
    raised = [Unavailable("down"), busy(), busy(), Unavailable("down")]
    attempts = limited(workshop, *raised, retry=Retry(max_attempts=2, base=0))
    run = await workshop.submit("ask")
    await workshop.drain()
    waiting = await workshop.get(run)
    assert (waiting.state, waiting.attempt) == ("retrying", 1)
    await workshop.drain_all()
    run = await workshop.get(run)
    assert (run.state, run.attempt) == ("failed", 2)
    assert attempts == [1, 2, 2, 2]


async def test_who_asks_for_patience_for_ever_ends_the_run_all_the_same(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.retry.MAX_SNOOZES", 4)
    attempts = limited(workshop, *[busy()] * 20, retry=Retry(max_attempts=3, base=0))
    run = await workshop.submit("ask")
    await workshop.drain_all()
    run = await workshop.get(run)
    assert (run.state, run.attempt) == ("failed", 3)
    assert attempts == [1] * 5 + [2, 3]
    assert (await workshop.states(run)).count("failed") == 1


async def retry_over_http(workshop: Workshop, run: RunRead) -> None:
    await service.retry(workshop.engine, run.id)


async def retry_by_procrastinate(workshop: Workshop, _: RunRead) -> None:
    job_id = await workshop.value("SELECT job_id FROM action_runs")
    await workshop.queue.job_manager.retry_job_by_id_async(job_id=job_id, retry_at=datetime.now(UTC))


@pytest.mark.parametrize("retry", [retry_over_http, retry_by_procrastinate])
async def test_a_run_that_is_retried_by_hand_is_as_patient_as_a_new_one(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, retry: Callable[[Workshop, RunRead], Any]
) -> None:
    monkeypatch.setattr("app.engine.retry.MAX_SNOOZES", 2)
    attempts = limited(workshop, *[busy()] * 5)
    run = await workshop.submit("ask")
    await workshop.drain_all()
    assert (await workshop.get(run)).state == "failed"
    await retry(workshop, run)
    assert await snoozes(workshop) == 0
    await workshop.drain_all()
    assert ((await workshop.get(run)).state, len(attempts)) == ("succeeded", 6)


async def test_a_job_without_a_run_is_retried_as_nobody_counts_how_often_it_waits(workshop: Workshop) -> None:
    tries: list[int] = []

    @workshop.queue.task(name="test:plain", retry=Retry(max_attempts=2, base=0))
    async def plain() -> None:
        tries.append(1)
        raise busy()

    job = await plain.defer_async()
    await workshop.drain_all()
    assert await workshop.queue.job_manager.get_job_status_async(job) is Status.FAILED
    assert len(tries) == 2


class PatientElsewhere(Exception):
    """Of another library, with an attribute of that name."""

    retry_after = 600


async def test_an_error_of_another_library_that_says_when_uses_an_attempt(workshop: Workshop) -> None:
    limited(workshop, PatientElsewhere(), retry=Retry(max_attempts=2))
    run = await workshop.submit("ask")
    await workshop.drain()
    run = await workshop.get(run)
    assert (run.state, run.attempt, await snoozes(workshop)) == ("retrying", 1, 0)


async def test_a_rule_of_the_action_may_make_patience_final(workshop: Workshop) -> None:
    limited(workshop, busy(), retry=Retry(rules={RateLimited: None}))
    run = await workshop.submit("ask")
    await workshop.drain()
    assert (await workshop.get(run)).state == "failed"


async def test_a_run_that_is_snoozed_has_started_in_time(workshop: Workshop) -> None:
    limited(workshop, busy())
    soon = datetime.now(UTC) + timedelta(minutes=5)
    run = await workshop.request(RunCreate(action="ask", start_deadline=soon))
    await workshop.drain()
    assert await workshop.value("SELECT start_deadline FROM action_runs") is None
    await Rescue(workshop.queue.connector, lease=30, crash_cap=3).sweep()
    await workshop.drain_all()
    assert (await workshop.get(run)).state == "succeeded"


async def test_a_run_that_waits_is_cancelled_at_once(workshop: Workshop) -> None:
    limited(workshop, busy())
    run = await workshop.submit("ask")
    await workshop.drain()
    cancelled = await service.cancel(workshop.engine, workshop.queue.job_manager, run.id)
    assert cancelled.state == "cancelled"


async def test_a_run_that_is_asked_to_stop_is_not_snoozed(workshop: Workshop) -> None:
    @workshop.action(retry=AT_ONCE)
    async def ask() -> None:
        await workshop.execute("UPDATE procrastinate_jobs SET abort_requested = true")
        raise busy()

    run = await workshop.submit("ask")
    await workshop.drain()
    assert (await workshop.get(run)).state == "cancelled"
    assert await snoozes(workshop) == 0


async def test_a_worker_that_is_lost_after_a_snooze_uses_an_attempt(workshop: Workshop) -> None:
    limited(workshop, busy(), retry=Retry(max_attempts=2, base=0))
    run = await workshop.submit("ask")
    await workshop.drain()
    await workshop.execute("UPDATE procrastinate_jobs SET scheduled_at = NULL")
    worker_id = await workshop.queue.job_manager.register_worker()
    assert await workshop.queue.job_manager.fetch_job(queues=None, worker_id=worker_id)
    await workshop.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
    assert len(await Rescue(workshop.queue.connector, lease=30, crash_cap=3).sweep()) == 1
    rescued = await workshop.get(run)
    assert (rescued.state, rescued.attempt, await snoozes(workshop)) == ("retrying", 1, 1)
    await workshop.drain_all()
    assert (await workshop.get(run)).attempt == 2


async def test_a_worker_that_is_lost_before_a_snooze_is_written_is_a_crash(workshop: Workshop) -> None:
    limited(workshop)
    run = await workshop.submit("ask")
    worker_id = await workshop.queue.job_manager.register_worker()
    job = await workshop.queue.job_manager.fetch_job(queues=None, worker_id=worker_id)
    assert job is not None and job.id is not None
    await workshop.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
    await Rescue(workshop.queue.connector, lease=30, crash_cap=3).sweep()
    too_late = queries.EndedJob(job.id, 0, "todo", attempts_made=0, is_snoozed=True, delay=600)
    assert await queries.end_jobs(workshop.queue.connector, worker_id=worker_id, ended=[too_late]) == set()
    assert ((await workshop.get(run)).attempt, await snoozes(workshop)) == (1, 0)


async def test_a_parent_waits_for_a_child_that_is_snoozed(workshop: Workshop) -> None:
    limited(workshop, busy(), busy())

    @workshop.action()
    async def parent(run: Run) -> Any:
        [child] = await run.gather([("ask", {})])
        return child.result

    run = await workshop.submit("parent")
    await workshop.drain()
    assert (await workshop.get(run)).state == "scheduled"
    for _ in range(2):
        await workshop.execute("UPDATE procrastinate_jobs SET scheduled_at = NULL WHERE task_name = 'ask'")
        await workshop.drain()
    run = await workshop.get(run)
    assert (run.state, run.result, run.attempt) == ("succeeded", "answered", 1)


async def test_what_a_snoozed_attempt_has_left_behind_writes_nothing_into_the_next(workshop: Workshop) -> None:
    held: list[Run] = []
    lost: list[str] = []

    @workshop.action(retry=AT_ONCE)
    async def ask(run: Run) -> None:
        held.append(run)
        if len(held) == 1:
            raise busy(0)
        zombie = held[0]
        assert zombie._holder.worker_id == run._holder.worker_id and zombie.attempt == run.attempt
        for write in (zombie.log("x"), zombie.step("x", asyncio.sleep, 0), zombie.spawn("ask")):
            try:
                await write
            except RunLost:
                lost.append("lost")
        await run.log("still here")

    run = await workshop.submit("ask")
    async with workshop.working():
        await workshop.reaches(run, "succeeded")
    assert lost == ["lost"] * 3
    assert [event["data"]["message"] for event in await workshop.events(run, "log")] == ["still here"]
    assert await workshop.value("SELECT count(*) FROM action_runs") == 1


async def test_a_snooze_that_is_written_again_leaves_the_next_attempt_alone(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = queries.end_jobs
    begun, written_again = asyncio.Event(), asyncio.Event()
    writes: list[set[int]] = []
    calls: list[int] = []

    async def lose_the_first_answer(database: queries.Database, **arguments: Any) -> set[int]:
        writes.append(await end(database, **arguments))
        if len(writes) == 1:
            await begun.wait()
            raise ConnectorException
        written_again.set()
        return writes[-1]

    monkeypatch.setattr(queries, "end_jobs", lose_the_first_answer)

    @workshop.action(retry=AT_ONCE)
    async def ask() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise busy(0)
        begun.set()
        await written_again.wait()

    run = await workshop.submit("ask")
    async with workshop.working():
        await workshop.reaches(run, "succeeded")
    assert [len(written) for written in writes] == [1, 0, 1]
    assert (len(calls), await snoozes(workshop)) == (2, 1)


async def test_an_attempt_that_ends_before_the_snooze_is_known_to_be_written_is_written_too(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, put = queries.end_jobs, Finisher.put
    ended_again = asyncio.Event()
    endings: list[Any] = []

    async def answer_late(database: queries.Database, **arguments: Any) -> set[int]:
        written = await end(database, **arguments)
        await ended_again.wait()
        return written

    def note(finisher: Finisher, context: Any, ending: Any) -> None:
        put(finisher, context, ending)
        endings.append(ending)
        if len(endings) == 2:
            ended_again.set()

    monkeypatch.setattr(queries, "end_jobs", answer_late)
    monkeypatch.setattr(Finisher, "put", note)
    attempts = limited(workshop, busy(0))
    run = await workshop.submit("ask")
    async with workshop.working():
        await workshop.reaches(run, "succeeded")
    assert attempts == [1, 1]
