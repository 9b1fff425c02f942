"""Signals: what a run is told from outside. None is lost, the first counts, and no worker waits for one."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from tests.support.eventually import eventually
from tests.support.workshop import Workshop

from app.engine import queries
from app.engine.claims import Claims
from app.engine.link import Link
from app.engine.queries import ParkedJob
from app.engine.retry import Retry
from app.errors import RunWaits, SignalTimeout, Unavailable
from app.runs import signals
from app.runs.context import Run
from app.runs.queries import Holder


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    @workshop.action()
    async def approval(run: Run, timeout: float | None = None) -> Any:
        try:
            return await run.wait_for("approved", timeout=timeout)
        except SignalTimeout:
            return "in vain"


async def test_a_signal_lets_the_run_go_on_with_what_it_says(workshop: Workshop, api: httpx2.AsyncClient) -> None:
    run = await workshop.submit("approval")
    await workshop.drain()
    assert (await workshop.get(run)).state == "scheduled"
    answer = await api.post(f"/runs/{run.id}/signals/approved", json={"by": "ada"})
    assert (answer.status_code, answer.json()["data"]) == (202, {"by": "ada"})
    await workshop.drain()
    done = await workshop.get(run)
    assert (done.state, done.result, done.attempt) == ("succeeded", {"by": "ada"}, 1)


async def test_a_signal_wakes_a_worker(workshop: Workshop, api: httpx2.AsyncClient) -> None:
    run = await workshop.submit("approval")
    async with workshop.working():
        await workshop.reaches(run, "scheduled")
        await api.post(f"/runs/{run.id}/signals/approved", json=7)
        assert (await workshop.reaches(run, "succeeded")).result == 7


@pytest.mark.parametrize("data", [None, False, "yes", [1, {"a": None}]])
async def test_a_signal_that_comes_early_is_kept(workshop: Workshop, api: httpx2.AsyncClient, data: Any) -> None:
    run = await workshop.submit("approval")
    assert (await api.post(f"/runs/{run.id}/signals/approved", json=data)).status_code == 202
    await workshop.drain()
    done = await workshop.get(run)
    assert (done.state, done.result) == ("succeeded", data)
    assert "scheduled" not in await workshop.states(run)


async def test_a_signal_without_a_body_says_nothing_but_that(workshop: Workshop, api: httpx2.AsyncClient) -> None:
    run = await workshop.submit("approval")
    assert (await api.post(f"/runs/{run.id}/signals/approved")).json()["data"] is None
    await workshop.drain()
    assert (await workshop.get(run)).state == "succeeded"


async def test_another_signal_wakes_nobody(workshop: Workshop, api: httpx2.AsyncClient) -> None:
    run = await workshop.submit("approval")
    await workshop.drain()
    assert (await api.post(f"/runs/{run.id}/signals/rejected")).status_code == 202
    assert (await workshop.get(run)).state == "scheduled"


async def test_the_first_signal_counts_and_may_be_sent_again(workshop: Workshop, api: httpx2.AsyncClient) -> None:
    run = await workshop.submit("approval")
    path = f"/runs/{run.id}/signals/approved"
    first, again = [await api.post(path, json={"by": "ada"}) for _ in range(2)]
    assert (again.status_code, again.json()) == (202, first.json())
    other = await api.post(path, json={"by": "bob"})
    assert (other.status_code, other.json()["type"]) == (409, "/problems/signal-sent")
    await workshop.drain()
    assert (await workshop.get(run)).result == {"by": "ada"}
    ended = await api.post(path, json={"by": "ada"})
    assert (ended.status_code, ended.json()["type"]) == (409, "/problems/run-final")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/runs/run_20200101T000000Z_00000000/signals/approved", 404),
        ("/runs/nonsense/signals/approved", 404),
        ("/runs/{id}/signals/not%20a%20name", 422),
        ("/runs/{id}/signals/" + "x" * 41, 422),
    ],
)
async def test_what_cannot_be_signalled_is_refused(
    workshop: Workshop, api: httpx2.AsyncClient, path: str, status: int
) -> None:
    run = await workshop.submit("approval")
    assert (await api.post(path.format(id=run.id))).status_code == status


async def test_what_cannot_be_stored_is_refused(workshop: Workshop, api: httpx2.AsyncClient) -> None:
    run = await workshop.submit("approval")
    answer = await api.post(f"/runs/{run.id}/signals/approved", json={"a": "\x00"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/a")
    assert await workshop.value("SELECT count(*) FROM run_signals") == 0


async def test_a_signal_that_does_not_come_in_time_is_given_up(workshop: Workshop) -> None:
    run = await workshop.submit("approval", timeout=3600)
    await workshop.drain()
    waiting = await workshop.get(run)
    assert waiting.state == "scheduled" and waiting.schedule_at is not None
    await pass_time(workshop)
    await workshop.drain()
    assert (await workshop.get(run)).result == "in vain"


async def test_a_run_that_is_woken_before_its_time_waits_for_the_rest_of_it(workshop: Workshop) -> None:
    run = await workshop.submit("approval", timeout=3600)
    await workshop.drain()
    until = await workshop.value("SELECT until FROM run_waits")
    await workshop.execute("UPDATE procrastinate_jobs SET scheduled_at = NULL")
    await workshop.drain()
    assert (await workshop.get(run)).schedule_at == until


async def test_a_timeout_fails_a_run_that_does_not_catch_it(workshop: Workshop) -> None:
    @workshop.action(retry=Retry(max_attempts=5))
    async def strict(run: Run) -> None:
        await run.wait_for("approved", timeout=3600)

    run = await workshop.submit("strict")
    await workshop.drain()
    await pass_time(workshop)
    await workshop.drain()
    done = await workshop.get(run)
    assert done.error is not None
    assert (done.state, done.attempt, done.error["type"]) == ("failed", 1, "/problems/signal-timeout")


@pytest.mark.parametrize("is_sent", [True, False])
async def test_every_attempt_gets_the_same(workshop: Workshop, api: httpx2.AsyncClient, is_sent: bool) -> None:
    heard: list[Any] = []

    @workshop.action(retry=Retry(max_attempts=2))
    async def parent(run: Run) -> None:
        try:
            heard.append(await run.wait_for("approved", timeout=3600))
        except SignalTimeout:
            heard.append("in vain")
        if run.attempt == 1:
            await api.post(f"/runs/{run.id}/signals/approved", json="late")
            raise Unavailable("later")

    run = await workshop.submit("parent")
    await workshop.drain()
    if is_sent:
        await api.post(f"/runs/{run.id}/signals/approved", json="yes")
    else:
        await pass_time(workshop)
    await workshop.drain_all()
    assert heard == (["yes", "yes"] if is_sent else ["in vain", "in vain"])


async def test_a_run_waits_for_one_signal_after_the_other(workshop: Workshop, api: httpx2.AsyncClient) -> None:
    @workshop.action()
    async def parent(run: Run) -> list[Any]:
        return [await run.wait_for(name) for name in ("first", "second")]

    run = await workshop.submit("parent")
    await api.post(f"/runs/{run.id}/signals/second", json=2)
    await workshop.drain()
    await api.post(f"/runs/{run.id}/signals/first", json=1)
    await workshop.drain()
    assert (await workshop.get(run)).result == [1, 2]


@pytest.mark.parametrize("moment", ["before the look", "between look and parking", "at the look"])
async def test_no_signal_is_lost(workshop: Workshop, moment: str) -> None:
    """Single-stepped: a worker looks, parks the job, and somebody signals."""
    link = Link(workshop.engine, timeout=20)
    worker_id = await workshop.queue.job_manager.register_worker()
    run = await workshop.submit("approval")
    [job] = await Claims(link, None).claim(worker_id, 1)

    async def look() -> signals.Answer:
        return await signals.receive(workshop.engine, Holder(run.id, worker_id, 1, snoozes=0), "approved", None)

    async def send() -> None:
        await signals.send(workshop.engine, run.id, "approved", "yes", owner=None)

    async def somebody_waits() -> bool:
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return bool(await workshop.value(waiting))

    match moment:
        case "before the look":
            await send()
            assert (await look()).data == "yes"
        case "at the look":
            async with workshop.engine.connect() as sending:
                await sending.execute(text("SELECT runledger_lock_wait_v1(:id)"), {"id": run.id})
                looking, also_sending = asyncio.create_task(look()), asyncio.create_task(send())
                await eventually(somebody_waits)
                await sending.commit()
                looked, _ = await asyncio.gather(looking, also_sending, return_exceptions=True)
            await queries.park_jobs(link, worker_id=worker_id, parked=[ParkedJob(job.id, job.attempts, job.claimed_at)])
            assert isinstance(looked, signals.Answer | RunWaits)
            assert (await workshop.get(run)).state == "queued"
        case _:
            with pytest.raises(RunWaits):
                await look()
            await send()
            await queries.park_jobs(link, worker_id=worker_id, parked=[ParkedJob(job.id, job.attempts, job.claimed_at)])
            assert (await workshop.get(run)).state == "queued"
    link.close()


async def pass_time(workshop: Workshop) -> None:
    """What a run waits for has not come in time."""
    await workshop.execute("UPDATE run_waits SET until = now()")
    await workshop.execute("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE status = 'todo'")
