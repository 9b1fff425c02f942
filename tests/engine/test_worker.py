"""The worker: how attempts end, and that nothing ends the worker."""

from __future__ import annotations

import asyncio

import pytest
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Status
from tests.support.eventually import eventually
from tests.support.workshop import Workshop

from app.engine import queries
from app.engine.claims import ClaimedJob, Claims
from app.engine.rescue import Rescue
from app.engine.retry import Retry
from app.errors import RateLimited, Rejected
from app.runs.context import Run


class PatientElsewhere(Exception):
    """Of another library, with an attribute of that name."""

    retry_after = 600


def repr_of_type(value: object) -> str:
    """A test's id: the text of some of these errors cannot be had."""
    return type(value).__name__


async def test_a_submitted_run_is_performed_and_its_result_is_kept(workshop: Workshop) -> None:
    @workshop.action()
    async def greet(name: str) -> str:
        return f"hello {name}"

    run = await workshop.submit("greet", name="Ada")
    assert run.state == "queued"
    await workshop.drain()

    run = await workshop.get(run)
    assert (run.state, run.result, run.attempt, run.error) == ("succeeded", "hello Ada", 1, None)
    assert await workshop.states(run) == ["queued", "running", "succeeded"]


async def test_an_error_is_kept_as_a_problem_and_tried_again(workshop: Workshop) -> None:
    tries: list[int] = []

    @workshop.action(retry=Retry(max_attempts=3))
    async def shaky(run: Run) -> int:
        tries.append(run.attempt)
        if run.attempt < 3:
            raise ConnectionError("the line is bad")
        return run.attempt

    run = await workshop.submit("shaky")
    await workshop.drain()
    between = await workshop.get(run)
    assert between.state == "retrying"
    assert between.error == {
        "type": "/problems/connection",
        "title": "Connection error",
        "detail": "the line is bad",
    }
    await workshop.drain_all()
    run = await workshop.get(run)
    assert (run.state, run.result, run.error, tries) == ("succeeded", 3, None, [1, 2, 3])


async def test_after_the_last_attempt_the_run_has_failed_and_the_traceback_is_kept_apart(workshop: Workshop) -> None:
    @workshop.action(retry=Retry(max_attempts=2))
    async def broken() -> None:
        raise ZeroDivisionError("by zero")

    run = await workshop.submit("broken")
    await workshop.drain_all()
    run = await workshop.get(run)
    assert (run.state, run.attempt) == ("failed", 2)
    traceback = await workshop.value("SELECT traceback FROM action_runs")
    assert 'raise ZeroDivisionError("by zero")' in traceback
    assert "Traceback" not in run.model_dump_json()


async def test_what_was_rejected_is_not_tried_again(workshop: Workshop) -> None:
    @workshop.action()
    async def refused() -> None:
        raise Rejected("no such page")

    run = await workshop.submit("refused")
    await workshop.drain()
    assert (await workshop.get(run)).state == "failed"


async def test_retry_after_is_respected_by_the_clock_of_the_database(workshop: Workshop) -> None:
    @workshop.action()
    async def limited() -> None:
        raise PatientElsewhere

    run = await workshop.submit("limited")
    await workshop.drain()
    assert await workshop.value(
        "SELECT schedule_at BETWEEN now() + interval '595 seconds' AND now() + interval '601 seconds' FROM action_runs"
    )
    assert (await workshop.get(run)).state == "retrying"


@pytest.mark.parametrize("escape", [SystemExit(3), asyncio.CancelledError("its own"), TimeoutError()])
async def test_whatever_an_action_raises_ends_the_run_and_not_the_worker(
    workshop: Workshop, escape: BaseException
) -> None:
    @workshop.action(retry=Retry(max_attempts=1))
    async def escapes() -> None:
        raise escape

    @workshop.action()
    async def fine() -> None: ...

    bad, good = await workshop.submit("escapes"), await workshop.submit("fine")
    await workshop.drain(concurrency=1)
    assert (await workshop.get(bad)).state == "failed"
    assert (await workshop.get(good)).state == "succeeded"


async def test_a_running_run_that_is_cancelled_stops(workshop: Workshop) -> None:
    started = asyncio.Event()

    @workshop.action()
    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    run = await workshop.submit("endless")
    async with workshop.working():
        await started.wait()
        await workshop.queue.job_manager.cancel_job_by_id_async(
            await workshop.value("SELECT job_id FROM action_runs"), abort=True
        )
        await workshop.reaches(run, "cancelled")
    run = await workshop.get(run)
    assert (run.state, run.error) == ("cancelled", None)
    assert await workshop.states(run) == ["queued", "running", "running", "cancelled"]


async def test_a_worker_told_to_stop_puts_its_runs_back_and_gives_the_attempt_back(workshop: Workshop) -> None:
    started = asyncio.Event()

    @workshop.action(retry=Retry(max_attempts=1))
    async def long() -> str:
        if not started.is_set():
            started.set()
            await asyncio.Event().wait()
        return "done by another worker"

    run = await workshop.submit("long")
    async with workshop.working(shutdown_graceful_timeout=0.05):
        await started.wait()
    back = await workshop.get(run)
    assert (back.state, back.attempt) == ("queued", 0)
    await workshop.drain()
    run = await workshop.get(run)
    assert (run.state, run.attempt, run.result) == ("succeeded", 1, "done by another worker")


async def test_a_worker_told_to_stop_lets_a_run_end_within_the_grace(workshop: Workshop) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    @workshop.action()
    async def short() -> str:
        started.set()
        await go_on.wait()
        return "in time"

    run = await workshop.submit("short")
    async with workshop.working(shutdown_graceful_timeout=30) as worker:
        await started.wait()
        worker.stop()
        go_on.set()
    assert (await workshop.get(run)).result == "in time"


async def test_a_task_this_worker_does_not_have_is_put_back_for_later(workshop: Workshop) -> None:
    await workshop.queue.configure_task("from_the_future", allow_unknown=True).defer_async()
    await workshop.drain()
    (row,) = await workshop.fetch("SELECT status, attempts, scheduled_at > now() AS later FROM procrastinate_jobs")
    assert (row["status"], row["attempts"], row["later"]) == ("todo", 0, True)


async def test_only_the_holder_can_end_a_run(workshop: Workshop) -> None:
    """A worker that was taken for dead comes back: its result is not kept."""
    started, go_on = asyncio.Event(), asyncio.Event()

    @workshop.action()
    async def slow(run: Run) -> str:
        if run.attempt == 1:
            started.set()
            await go_on.wait()
        return f"attempt {run.attempt}"

    run = await workshop.submit("slow")
    async with workshop.working():
        await started.wait()
        # As the rescue does when the worker is not heard of.
        await workshop.execute("UPDATE procrastinate_jobs SET status = 'todo', attempts = attempts + 1")
        await workshop.reaches(run, "succeeded")
        go_on.set()
    run = await workshop.get(run)
    assert (run.result, run.attempt) == ("attempt 2", 2)
    assert (await workshop.states(run)).count("succeeded") == 1


async def test_the_runs_of_a_lost_worker_go_on_with_another(workshop: Workshop) -> None:
    @workshop.action()
    async def work(run: Run) -> int:
        return run.attempt

    run = await workshop.submit("work")
    await lose_worker(workshop)
    async with workshop.working():
        await workshop.reaches(run, "succeeded")
    run = await workshop.get(run)
    assert (run.result, await workshop.value("SELECT crashes FROM action_runs")) == (2, 1)
    assert (await workshop.events(run))[2]["data"]["error"]["type"] == "/problems/worker-lost"


async def test_a_run_whose_workers_are_lost_too_often_has_failed(workshop: Workshop) -> None:
    @workshop.action()
    async def poison() -> None: ...

    run = await workshop.submit("poison")
    await workshop.execute("UPDATE action_runs SET crashes = :n", n=workshop.settings.crash_cap - 1)
    await lose_worker(workshop)
    async with workshop.working():
        await workshop.reaches(run, "failed")
    error = (await workshop.get(run)).error
    assert error is not None
    assert error["title"] == "The worker was lost"


async def test_a_worker_that_was_taken_for_dead_puts_its_row_back(workshop: Workshop) -> None:
    @workshop.action()
    async def fine() -> None: ...

    async with workshop.working(update_heartbeat_interval=0.01):
        await eventually(lambda: workshop.value("SELECT id FROM procrastinate_workers"))
        await workshop.execute("DELETE FROM procrastinate_workers")
        await eventually(lambda: workshop.value("SELECT id FROM procrastinate_workers"))
        run = await workshop.submit("fine")
        await workshop.reaches(run, "succeeded")


async def test_a_side_task_that_breaks_is_started_again(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = asyncio.Event()
    beats: list[int] = []

    async def beat(_: queries.Database, *, worker_id: int, about: queries.AboutWorker) -> None:
        beats.append(worker_id)
        if len(beats) == 2:
            twice.set()
        raise OSError("the network is gone")

    monkeypatch.setattr(queries, "beat", beat)

    @workshop.action()
    async def fine() -> None: ...

    async with workshop.working(update_heartbeat_interval=0.01):
        await twice.wait()
        run = await workshop.submit("fine")
        await workshop.reaches(run, "succeeded")


@pytest.mark.bell("the announcement itself is what may be missed")
async def test_a_run_announced_while_the_worker_looks_is_not_missed(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look has already passed the run's place when its NOTIFY arrives."""
    looked = asyncio.Event()
    claim = Claims.claim

    async def look_and_linger(self: Claims, worker_id: int, limit: int) -> list[ClaimedJob]:
        found = await claim(self, worker_id, limit)
        if not looked.is_set():
            looked.set()
            await asyncio.wait_for(announced.wait(), 20)
        return found

    monkeypatch.setattr(Claims, "claim", look_and_linger)
    announced = asyncio.Event()

    @workshop.action()
    async def fine() -> None: ...

    async with workshop.working(fetch_job_polling_interval=600) as worker:
        await looked.wait()
        await eventually(
            lambda: workshop.value(
                "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
            )
        )
        worker._new_job_event.clear()
        run = await workshop.submit("fine")
        await asyncio.wait_for(worker._new_job_event.wait(), 20)
        announced.set()
        await workshop.reaches(run, "succeeded")


@pytest.mark.parametrize(
    ("error", "waiting"), [(RateLimited("not now", retry_after=600), "scheduled"), (PatientElsewhere(), "retrying")]
)
async def test_who_waits_again_beside_another_run_of_its_queueing_lock_waits_without_the_lock(
    workshop: Workshop, error: Exception, waiting: str
) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    @workshop.action(queueing_lock="one waits", retry=Retry(max_attempts=2, base=60))
    async def sync() -> None:
        started.set()
        await go_on.wait()
        raise error

    first = await workshop.submit("sync")
    async with workshop.working(concurrency=1):
        await started.wait()
        second = await workshop.submit("sync")
        go_on.set()
        await workshop.reaches(first, waiting)
        await workshop.reaches(second, waiting)
    locks = await workshop.fetch("SELECT queueing_lock FROM procrastinate_jobs ORDER BY id")
    assert {row["queueing_lock"] for row in locks} == {None, "one waits"}


async def test_a_worker_told_to_stop_puts_a_run_back_beside_another_of_its_queueing_lock(workshop: Workshop) -> None:
    started = asyncio.Event()

    @workshop.action(queueing_lock="one waits")
    async def long() -> None:
        started.set()
        await asyncio.Event().wait()

    first = await workshop.submit("long")
    async with workshop.working(concurrency=1, shutdown_graceful_timeout=0.05):
        await started.wait()
        await workshop.submit("long")
    assert (await workshop.get(first)).state == "queued"


async def test_a_claim_whose_answer_was_lost_goes_back(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Claims.claim
    lost: list[ClaimedJob] = []

    async def lose_the_first_answer(self: Claims, worker_id: int, limit: int) -> list[ClaimedJob]:
        found = await claim(self, worker_id, limit)
        if found and not lost:
            lost.extend(found)
            raise ConnectorException
        return found

    monkeypatch.setattr(Claims, "claim", lose_the_first_answer)

    @workshop.action()
    async def fine(run: Run) -> int:
        return run.attempt

    run = await workshop.submit("fine")
    async with workshop.working():
        run = await workshop.reaches(run, "succeeded")
    assert lost
    assert run.result == 1


@pytest.mark.parametrize(
    ("raised", "type_", "detail"),
    [
        ([KeyError("a")], "/problems/key", "'a'"),
        (
            [KeyError("a"), Rejected("no"), TimeoutError()],
            "/problems/several",
            "Key error: 'a'; Rejected: no; Timeout error",
        ),
    ],
    ids=["one", "several"],
)
async def test_a_group_is_described_by_the_errors_in_it(
    workshop: Workshop, raised: list[Exception], type_: str, detail: str
) -> None:
    @workshop.action(retry=Retry(max_attempts=1))
    async def together() -> None:
        raise ExceptionGroup("unhandled errors in a TaskGroup", raised)

    run = await workshop.submit("together")
    await workshop.drain()
    run = await workshop.get(run)
    assert run.error is not None
    assert (run.state, run.error["type"], run.error["detail"]) == ("failed", type_, detail)


class NoText(Exception):
    def __str__(self) -> str:
        raise ValueError("not even that")


class OddMembers(Exception):
    retry_after = "Wed, 21 Oct 2026 07:28:00 GMT"

    def title(self) -> None: ...


class Panic(BaseException):
    """As an extension module's panic."""


@pytest.mark.parametrize(
    "raised", [NoText(), OddMembers("a\x00b"), Panic(), BaseExceptionGroup("several", [Panic()])], ids=repr_of_type
)
async def test_whatever_was_raised_the_run_ends(workshop: Workshop, raised: BaseException) -> None:
    @workshop.action(retry=Retry(max_attempts=1))
    async def odd() -> None:
        raise raised

    run = await workshop.submit("odd")
    await workshop.drain()
    assert (await workshop.get(run)).state == "failed"


async def test_a_plain_task_that_returns_what_is_no_json_ends_too(workshop: Workshop) -> None:
    @workshop.queue.task(name="test:plain")
    async def plain() -> object:
        return object()

    job = await plain.defer_async()
    await workshop.drain()
    assert await workshop.queue.job_manager.get_job_status_async(job) is Status.FAILED


async def test_a_run_that_the_database_did_not_give_costs_no_attempt(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise OSError("the network is gone")

    @workshop.action(retry=Retry(max_attempts=2, base=0))
    async def fails_once(run: Run) -> None:
        await run.step("first", asyncio.sleep, 0)
        if run.attempt == 1:
            raise ValueError

    run = await workshop.submit("fails_once")
    with monkeypatch.context() as patched:
        patched.setattr("app.runs.queries.get_steps", away)
        await workshop.drain()
    assert (await workshop.get(run)).attempt == 1
    await workshop.drain_all()
    assert (await workshop.get(run)).state == "succeeded"


async def test_every_run_of_a_lost_worker_is_rescued_by_one_sweep(workshop: Workshop) -> None:
    @workshop.action()
    async def fine() -> None: ...

    await fine.batch_defer_async(*({} for _ in range(150)))
    worker = await workshop.queue.job_manager.register_worker()
    await workshop.execute("UPDATE procrastinate_jobs SET status = 'doing', worker_id = :id", id=worker)
    await workshop.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
    assert len(await Rescue(workshop.queue.connector, lease=30, crash_cap=3).sweep()) == 150


async def test_an_action_that_ignores_its_cancellation_does_not_hold_up_the_end(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.worker.ABANDON_SECONDS", 0.1)
    started, release = asyncio.Event(), asyncio.Event()

    @workshop.action()
    async def stubborn() -> None:
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    run = await workshop.submit("stubborn")
    async with workshop.working(shutdown_graceful_timeout=0.05):
        await started.wait()
    assert await workshop.value("SELECT count(*) FROM procrastinate_workers") == 0
    assert len(await Rescue(workshop.queue.connector, lease=30, crash_cap=3).sweep()) == 1
    release.set()
    assert (await workshop.get(run)).state == "retrying"


async def lose_worker(workshop: Workshop) -> None:
    """Claim what waits with a worker that is then never heard of again."""
    worker = await workshop.queue.job_manager.register_worker()
    assert await workshop.queue.job_manager.fetch_job(queues=None, worker_id=worker)
    await workshop.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
