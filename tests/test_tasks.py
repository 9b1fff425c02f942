"""The actions that come with it, and the cron task, in the real app over a test's database."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator

import pytest
from procrastinate.periodic import PeriodicDeferrer
from scripts.sites import BROKEN, CountingSite, DemoSite
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.workshop import Workshop

from app import tasks
from app.config import Settings
from app.engine.connector import SQLAlchemyAsyncConnector
from app.runs.intake import Intake
from app.runs.schemas import RunRead


@pytest.fixture
async def real(engine: AsyncEngine, settings: Settings) -> AsyncIterator[Workshop]:
    connector = SQLAlchemyAsyncConnector(engine, timeout=settings.db_timeout_seconds)
    intake = Intake(engine, timeout=settings.db_timeout_seconds)
    with tasks.procrastinate_app.replace_connector(connector):
        yield Workshop(settings, engine, tasks.procrastinate_app, tasks.action, intake)
    await intake.aclose()


async def test_echo_says_it_back(real: Workshop) -> None:
    assert (await performed(real, "echo", message="héllo 漢")).result == {"message": "héllo 漢"}


async def test_hello_world_gives_back_what_was_sent_along(real: Workshop) -> None:
    run = await performed(real, "hello_world", data={"any": ["json"]})
    assert run.result == {"greeting": "Hello, world!", "data": {"any": ["json"]}}


async def test_noop_keeps_what_was_sent(real: Workshop) -> None:
    run = await performed(real, "noop", key="value", nested={"a": 1})
    assert (run.state, run.params, run.result) == ("succeeded", {"key": "value", "nested": {"a": 1}}, None)


async def test_sleep_says_how_long(real: Workshop) -> None:
    run = await performed(real, "sleep", seconds=0, message="soon")
    assert run.result == {"slept_seconds": 0, "message": "soon"}


async def test_the_pages_of_a_crawl_are_found_by_what_they_mean(real: Workshop, pgvector: None) -> None:
    with CountingSite(3) as site:
        crawl = await performed(real, "scrape_site", url=site.start, pages_per_second=50)
    for _ in range(2):
        embedded = await performed(real, "embed_texts", collection="book", run_id=crawl.id)
        assert embedded.result == {"collection": "book", "stored": 3, "skipped": 0}
    found = await performed(real, "search_texts", collection="book", query="lighthouse2", limit=1)
    assert found.result is not None
    assert [item["source"] for item in found.result["items"]] == [f"{site.url}/page/2"]


async def test_a_crawl_waits_without_a_worker_for_a_site_that_has_gone_away(
    real: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("PAUSE_SECONDS", "LONGEST_PAUSE_SECONDS"):
        monkeypatch.setattr(f"app.domain.scraping.site.{pause}", 0)
    with CountingSite(30) as site:
        site.instead = {f"/page/{n}": BROKEN for n in range(1, 30)}
        run = await real.submit("scrape_site", url=site.start, pages_per_second=50)
        await real.drain()
        waiting = await real.get(run)
        assert (waiting.state, waiting.attempt) == ("scheduled", 0)
        assert waiting.schedule_at is not None
        assert waiting.schedule_at - datetime.datetime.now(datetime.UTC) > datetime.timedelta(seconds=10)
        site.instead = {}
        await real.drain_all()
    ended = await real.get(run)
    assert (ended.state, ended.attempt) == ("succeeded", 1)
    assert len(ended.result["pages"]) >= 28
    assert site.visits["/page/0"] == 1


async def test_only_the_pages_of_runs_that_have_read_some_are_embedded(real: Workshop) -> None:
    greeting = await performed(real, "echo", message="no page")
    run = await performed(real, "embed_texts", collection="book", run_id=greeting.id)
    assert run.state == "failed"
    assert run.error is not None
    assert "There is no run of scrape_page or scrape_site" in run.error["detail"]


async def test_count_words_counts_in_ten_steps_with_progress(real: Workshop) -> None:
    run = await performed(real, "count_words", text="to be or not to be, that is the question")
    assert run.result["total"] == 10
    assert run.result["most_common"][0] == {"word": "be", "count": 2}
    assert len(await real.events(run, "step")) == 10
    assert run.progress is not None
    assert (run.progress.percent, run.progress.message) == (100, "part 10 of 10")


async def test_scrape_page_reads_a_page_and_succeeds_by_retry_where_a_site_has_a_bad_moment(real: Workshop) -> None:
    with DemoSite() as site:
        page = await performed(real, "scrape_page", url=site.url)
        moody = await performed(real, "scrape_page", url=f"{site.url.rstrip('/')}/moody")
    assert page.state == "succeeded"
    assert page.result["title"]
    assert page.result["description"]
    assert page.result["links"]
    assert (moody.state, moody.attempt) == ("succeeded", 2), "once it was down, and once it asked for patience"


async def test_a_page_that_is_not_there_is_not_asked_for_again(real: Workshop) -> None:
    with DemoSite() as site:
        run = await performed(real, "scrape_page", url=f"{site.url.rstrip('/')}/nothing-here")
    assert (run.state, run.attempt) == ("failed", 1)
    assert run.error is not None
    assert run.error["type"] == "/problems/rejected"


async def test_prune_ledger_deletes_what_ended_long_ago_and_nothing_else(real: Workshop) -> None:
    old, waiting = await performed(real, "count_words", text="a b"), await real.submit("echo", message="x")
    await real.execute("UPDATE action_runs SET created_at = created_at - interval '31 days'")
    await real.execute("UPDATE action_runs SET finished_at = finished_at - interval '31 days'")
    fresh = await real.submit("echo", message="y")
    await real.queue.job_manager.cancel_job_by_id_async(
        await real.value("SELECT job_id FROM action_runs WHERE id = :id", id=fresh.id)
    )
    await real.queue.configure_task("prune_ledger", queue="first").defer_async(days=30)
    await real.drain(queues=["first"])
    kept = [row["id"] for row in await real.fetch("SELECT id FROM action_runs WHERE queue <> 'first' ORDER BY job_id")]
    assert kept == [waiting.id, fresh.id]
    for table in ("run_events", "run_steps"):
        assert await real.value(f"SELECT count(*) FROM {table} WHERE run_id = :id", id=old.id) == 0
    assert await real.value("SELECT count(*) FROM procrastinate_jobs") == 3
    assert await real.value("SELECT result FROM action_runs WHERE queue = 'first'") == {
        "runs": 1, "deliveries": 0, "audit_entries": 0, "digests": 0,
    }  # fmt: skip


async def test_the_nightly_run_is_a_run_like_any_other_and_one_per_tick(real: Workshop) -> None:
    tick = int(datetime.datetime(2026, 11, 21, 3, 17, tzinfo=datetime.UTC).timestamp())
    nightly = tasks.procrastinate_app.periodic_registry.periodic_tasks["prune_ledger", ""]
    for _ in range(2):
        await PeriodicDeferrer(tasks.procrastinate_app.periodic_registry).defer_jobs([(nightly, tick)])
    (row,) = await real.fetch("SELECT id, action, queue, params FROM action_runs")
    assert (row["action"], row["queue"], row["params"]) == ("prune_ledger", "maintenance", {"timestamp": tick})
    await real.drain()
    assert (await real.get(row["id"])).result == {"runs": 0, "deliveries": 0, "audit_entries": 0, "digests": 0}


async def performed(workshop: Workshop, action: str, **params: object) -> RunRead:
    """Submit a run, perform it with all its retries, and return it."""
    run = await workshop.submit(action, **params)
    await workshop.drain_all()
    return await workshop.get(run)
