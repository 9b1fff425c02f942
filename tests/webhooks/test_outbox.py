"""The outbox is written with the end of a run, whoever ends it, and costs nothing while nobody asks."""

from __future__ import annotations

import signal
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.support.processes import worker_process
from tests.support.receiver import HANG, receiver
from tests.webhooks.conftest import Post

from app.runs import service as runs
from app.webhooks import deliveries

NOWHERE = "http://127.0.0.1:9/"
OUTBOX = "SELECT type, run_id FROM webhook_deliveries ORDER BY id"


async def test_without_endpoints_nothing_is_written_and_no_run_is_read(post: Post) -> None:
    run = await post.submit("echo")
    await post.drain()
    assert await post.fetch(OUTBOX) == []
    assert await reads_of_runs(post, run.id) == 0
    # What shows that the line above could fail.
    await post.endpoint(NOWHERE)
    assert await reads_of_runs(post, run.id) > 0


async def reads_of_runs(post: Post, run_id: str) -> int:
    """How often the ledger is looked at when an end is told."""
    scans = text("""
        SELECT sum(pg_stat_get_xact_numscans(relation)) FROM (
            SELECT 'action_runs'::regclass AS relation
             UNION ALL
            SELECT indexrelid FROM pg_index WHERE indrelid = 'action_runs'::regclass) AS relations
    """)
    tell = text(
        "INSERT INTO run_events (run_id, seq, type, data) VALUES (:id, 99, 'state', '{\"state\": \"succeeded\"}')"
    )
    async with post.engine.connect() as connection:
        before = await connection.scalar(scans)
        await connection.execute(tell, {"id": run_id})
        after = await connection.scalar(scans)
        await connection.rollback()
    return int(after) - int(before)


@pytest.mark.parametrize(
    ("ending", "type_"),
    [
        ("UPDATE procrastinate_jobs SET status = 'cancelled'", "run.cancelled"),
        ("UPDATE procrastinate_jobs SET status = 'failed'", "run.failed"),
        ("UPDATE procrastinate_jobs SET status = 'succeeded'", "run.succeeded"),
        ("DELETE FROM procrastinate_jobs", "run.cancelled"),
    ],
)
async def test_whoever_ends_a_run_tells(post: Post, ending: str, type_: str) -> None:
    await post.endpoint(NOWHERE)
    run = await post.submit("echo")
    await post.execute(ending)
    assert await post.fetch(OUTBOX) == [{"type": type_, "run_id": run.id}]


async def test_a_cancelled_run_is_told_of(post: Post) -> None:
    await post.endpoint(NOWHERE)
    run = await post.submit("echo")
    await runs.cancel(post.engine, post.queue.job_manager, run.id)
    assert await post.fetch(OUTBOX) == [{"type": "run.cancelled", "run_id": run.id}]


async def test_an_end_that_is_rolled_back_tells_nobody(post: Post) -> None:
    await post.endpoint(NOWHERE)
    await post.submit("echo")
    async with post.engine.connect() as connection:
        await connection.execute(text("UPDATE procrastinate_jobs SET status = 'succeeded'"))
        assert (await connection.execute(text(OUTBOX))).all() != []
        await connection.rollback()
    assert await post.fetch(OUTBOX) == []


async def test_each_end_is_one_delivery_an_endpoint_and_a_delivery_s_own_end_is_none(post: Post) -> None:
    async with receiver(200) as there:
        for _ in range(2):
            await post.endpoint(there.url)
        ended = [(await post.submit("echo")).id for _ in range(20)]
        await post.drain()
        assert sorted(each["run_id"] for each in await post.fetch(OUTBOX)) == sorted(ended * 2)
        assert len(there.got) == 40
        assert len({got.id for got in there.got}) == 20


async def test_a_run_that_fails_again_after_a_retry_is_another_event(post: Post) -> None:
    async with receiver(200) as there:
        await post.endpoint(there.url)
        run = await post.submit("refuse")
        await post.drain()
        await runs.retry(post.engine, run.id)
        await post.drain()
        assert [got.id for got in there.got] == [f"evt{run.id[3:]}_3", f"evt{run.id[3:]}_6"]


async def test_a_worker_killed_between_the_post_and_the_note_sends_the_same_event_again(
    post: Post, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    async with receiver(HANG, 200) as there:
        endpoint = await post.endpoint(there.url)
        await post.submit("echo", message="hello")
        with worker_process(post.settings, log) as worker:
            await there.gets(1)
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        with worker_process(post.settings, log):
            first, second = await there.gets(2)
            run = await post.value("SELECT id FROM action_runs WHERE action = 'deliver_webhook'")
            await post.reaches(await post.get(run), "succeeded")
    assert (first.id, first.body) == (second.id, second.body)
    for got in (first, second):
        got.verified(endpoint.secret)
    [delivery] = await post.log(endpoint)
    assert (delivery.state, len(delivery.attempts)) == ("delivered", 1)


async def test_old_deliveries_are_pruned_and_those_still_attempted_are_not(post: Post) -> None:
    async with receiver(200) as there, receiver(500) as broken:
        await post.endpoint(there.url)
        endpoint = await post.endpoint(broken.url)
        await post.submit("echo")
        await post.drain()
        await post.execute("UPDATE webhook_deliveries SET created_at = now() - interval '40 days'")
        assert await deliveries.prune(post.engine, older_than=timedelta(days=30)) == 1
        assert [each.state for each in await post.log(endpoint)] == ["pending"]
