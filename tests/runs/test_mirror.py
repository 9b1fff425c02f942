"""One truth: whatever changes a job, in whatever way, its run shows in the same transaction."""

from __future__ import annotations

import datetime

import pytest
from procrastinate.jobs import Status
from sqlalchemy import text
from tests.support.workshop import Workshop

from app.engine.retry import Retry
from app.runs.schemas import RunCreate, RunRead
from app.runs.submission import submit_within


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    @workshop.action()
    async def note(what: str = "x") -> str:
        return what

    @workshop.action(retry=Retry(max_attempts=2))
    async def fail() -> None:
        raise NoLuck


class NoLuck(Exception):
    # Without it, full jitter may make the next attempt due before the drain has ended.
    retry_after = 60


async def test_a_job_deferred_without_a_run_gets_one(workshop: Workshop) -> None:
    job = await workshop.action["note"].task.configure(queue="q", priority=3, lock="l").defer_async(what="y")
    (row,) = await workshop.fetch("SELECT * FROM action_runs")
    assert (row["job_id"], row["action"], row["params"], row["state"]) == (job, "note", {"what": "y"}, "queued")
    assert (row["queue"], row["priority"], row["lock"]) == ("q", 3, "l")
    await workshop.drain()
    run = await workshop.get(row["id"])
    assert (run.state, run.result) == ("succeeded", "y")
    assert await workshop.states(run) == ["queued", "running", "succeeded"]


async def test_a_batch_of_jobs_gets_a_run_each(workshop: Workshop) -> None:
    await workshop.action["note"].task.batch_defer_async(*({"what": str(n)} for n in range(20)))
    rows = await workshop.fetch("SELECT id, params FROM action_runs ORDER BY job_id")
    assert [row["params"] for row in rows] == [{"what": str(n)} for n in range(20)]
    assert len({row["id"] for row in rows}) == 20


async def test_a_task_of_a_namespace_has_no_run(workshop: Workshop) -> None:
    await workshop.queue.configure_task("builtin:something", allow_unknown=True).defer_async()
    assert await workshop.value("SELECT count(*) FROM action_runs") == 0


async def test_a_submission_and_its_job_vanish_together(workshop: Workshop) -> None:
    async with workshop.engine.connect() as connection:
        await workshop.action["note"].task.configure(connection=connection).defer_async()
        await connection.rollback()
    for table in ("action_runs", "run_events", "procrastinate_jobs"):
        assert await workshop.value(f"SELECT count(*) FROM {table}") == 0


async def test_cancelling_the_job_cancels_the_run(workshop: Workshop) -> None:
    run = await workshop.submit("note")
    assert await workshop.queue.job_manager.cancel_job_by_id_async(await job_of(workshop, run))
    run = await workshop.get(run)
    assert (run.state, run.attempt) == ("cancelled", 0)
    assert run.finished_at is not None
    assert await workshop.states(run) == ["queued", "cancelled"]


async def test_deleting_a_waiting_job_cancels_the_run_and_says_so(workshop: Workshop) -> None:
    run = await workshop.submit("note")
    await workshop.queue.job_manager.cancel_job_by_id_async(await job_of(workshop, run), delete_job=True)
    run = await workshop.get(run)
    assert run.state == "cancelled"
    assert run.error is not None
    assert run.error["type"] == "/problems/job-deleted"


async def test_deleting_the_job_of_an_ended_run_changes_nothing(workshop: Workshop) -> None:
    run = await workshop.submit("note")
    await workshop.drain()
    before = await workshop.get(run)
    await workshop.execute("DELETE FROM procrastinate_jobs")
    assert await workshop.get(run) == before


@pytest.mark.parametrize(
    ("status", "state"), [(Status.SUCCEEDED, "succeeded"), (Status.FAILED, "failed"), (Status.ABORTED, "cancelled")]
)
async def test_finishing_the_job_by_procrastinate_finishes_the_run(
    workshop: Workshop, status: Status, state: str
) -> None:
    run = await workshop.submit("note")
    worker = await workshop.queue.job_manager.register_worker()
    job = await workshop.queue.job_manager.fetch_job(queues=None, worker_id=worker)
    assert job is not None
    assert job.id is not None
    running = await workshop.get(run)
    assert (running.state, running.attempt, running.worker) == ("running", 1, worker)
    await workshop.queue.job_manager.finish_job_by_id_async(job_id=job.id, status=status, delete_job=False)
    run = await workshop.get(run)
    assert (run.state, run.attempt) == (state, 1)
    assert run.finished_at is not None


async def test_a_retry_by_procrastinate_is_a_retry_of_the_run(workshop: Workshop) -> None:
    run = await workshop.submit("fail")
    await workshop.drain_all()
    run = await workshop.get(run)
    assert (run.state, run.attempt) == ("failed", 2)
    now = datetime.datetime.now(datetime.UTC)
    job = await job_of(workshop, run)
    await workshop.queue.job_manager.retry_job_by_id_async(job_id=job, retry_at=now)
    again = await workshop.get(run)
    assert (again.state, again.finished_at) == ("retrying", None)
    await workshop.drain_all()
    assert (await workshop.get(run)).state == "failed"


async def test_abort_and_retry_together_end_as_cancelled(workshop: Workshop) -> None:
    run = await workshop.submit("note")
    worker = await workshop.queue.job_manager.register_worker()
    job = await workshop.queue.job_manager.fetch_job(queues=None, worker_id=worker)
    assert job is not None
    assert job.id is not None
    await workshop.queue.job_manager.cancel_job_by_id_async(job.id, abort=True)
    asked = await workshop.get(run)
    assert asked.state == "running"
    assert (await workshop.events(run))[-1]["data"]["cancel_requested"] is True
    await workshop.queue.job_manager.retry_job_by_id_async(job_id=job.id, retry_at=datetime.datetime.now(datetime.UTC))
    assert (await workshop.get(run)).state == "cancelled"


async def test_plain_sql_on_the_job_is_seen_too(workshop: Workshop) -> None:
    runs = [await workshop.submit("note") for _ in range(3)]
    await workshop.execute("UPDATE procrastinate_jobs SET queue_name = 'slow', priority = 9")
    assert {(run.queue, run.priority) for run in [await workshop.get(run) for run in runs]} == {("slow", 9)}


async def test_what_a_transaction_does_to_jobs_after_a_submission_is_seen_too(workshop: Workshop) -> None:
    """The submission keeps the ledger itself, and only for itself."""
    request = RunCreate(action="note")
    first = await workshop.submit("note")
    async with workshop.engine.begin() as connection:
        run = await submit_within(workshop.intake, connection, workshop.action["note"], request)
        await connection.execute(text("UPDATE procrastinate_jobs SET status = 'cancelled'"))
    for each in (first, run):
        assert (await workshop.get(each)).state == "cancelled"
        assert await workshop.states(each) == ["queued", "cancelled"]


async def test_the_events_of_a_run_count_from_one_without_a_gap(workshop: Workshop) -> None:
    run = await workshop.submit("fail")
    await workshop.drain_all()
    events = await workshop.events(run)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    states = [event["data"]["state"] for event in events]
    # The second "retrying" is the test's own: it moved the time of the next attempt.
    assert states == ["queued", "running", "retrying", "retrying", "running", "failed"]


async def test_a_pruned_worker_changes_no_ended_run(workshop: Workshop) -> None:
    run = await workshop.submit("note")
    await workshop.drain()
    before = await workshop.events(run)
    await workshop.execute("DELETE FROM procrastinate_workers")
    assert await workshop.events(run) == before


async def test_a_scheduled_run_is_queued_when_its_time_has_come(workshop: Workshop) -> None:
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    run = await workshop.request(RunCreate(action="note", schedule_at=later))
    assert run.state == "scheduled"
    await workshop.drain()
    assert (await workshop.get(run)).state == "scheduled"
    await workshop.execute("UPDATE action_runs SET schedule_at = now() - interval '1 second'")
    assert (await workshop.get(run)).state == "queued"


async def test_ten_thousand_ids_made_in_one_second_are_all_different(workshop: Workshop) -> None:
    made = await workshop.value("SELECT count(DISTINCT runledger_new_run_id_v1()) FROM generate_series(1, 10000)")
    assert made == 10_000


async def job_of(workshop: Workshop, run: RunRead) -> int:
    return await workshop.value("SELECT job_id FROM action_runs WHERE id = :id", id=run.id)
