"""The nightly digest, in the real app over a test's database: a news site on loopback, a stub that summarises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.mailbox import mailbox
from tests.support.news import NewsSite, news_site
from tests.support.workshop import Workshop

from app import tasks
from app.config import Settings
from app.domain.digest.reading import MAX_FEED_BYTES
from app.engine.connector import SQLAlchemyAsyncConnector
from app.engine.schedule import Scheduler
from app.runs import service
from app.runs.intake import Intake
from app.runs.schemas import RunRead

ACTION = "generate_nightly_news_digest"
MONDAY = datetime(2026, 11, 23, 2, tzinfo=UTC)
TUESDAY = MONDAY + timedelta(days=1)

Configure = Callable[..., None]


@pytest.fixture
async def configure(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    def configure(**given: object) -> None:
        update = {"data_dir": tmp_path, **given}
        monkeypatch.setattr(tasks, "settings", settings.model_copy(update=update))

    configure()
    return configure


@pytest.fixture
async def real(engine: AsyncEngine, settings: Settings, configure: Configure) -> AsyncIterator[Workshop]:
    connector = SQLAlchemyAsyncConnector(engine, timeout=settings.db_timeout_seconds)
    intake = Intake(engine, timeout=settings.db_timeout_seconds)
    with tasks.procrastinate_app.replace_connector(connector):
        yield Workshop(settings, engine, tasks.procrastinate_app, tasks.action, intake)
    await intake.aclose()


@pytest.fixture
def site(configure: Configure) -> Iterator[NewsSite]:
    with news_site(world=[3, 2, 1], town=[4, 3]) as site:
        configure(digest_feeds=[site.feed("world"), site.feed("town")])
        yield site


async def performed(workshop: Workshop, night: datetime | None = MONDAY) -> RunRead:
    run = await workshop.submit(ACTION, **({} if night is None else {"timestamp": int(night.timestamp())}))
    await workshop.drain_all()
    return await workshop.get(run)


async def made(workshop: Workshop, night: datetime | None = MONDAY) -> dict[str, Any]:
    run = await performed(workshop, night)
    assert run.state == "succeeded", run.error
    return run.result


def titles(digest: dict[str, Any]) -> list[str]:
    return [item["title"] for item in digest["items"]]


async def test_a_fresh_clone_has_news_in_its_first_night_and_none_in_its_second(real: Workshop) -> None:
    digest = await made(real)
    assert digest["outcome"] == "made"
    assert "[stub " in digest["title"]
    assert [item["link"] for item in digest["items"]] == [f"http://news.example/articles/{n}" for n in (1, 2, 3)]
    assert digest["mail"] is None
    assert (await made(real, TUESDAY))["outcome"] == "nothing_new"


async def test_without_feeds_and_stubs_a_night_ends_well_and_says_so(real: Workshop, configure: Configure) -> None:
    configure(stub_generation=False)
    assert (await made(real))["outcome"] == "no_feeds"
    assert await real.value("SELECT count(*) FROM digests") == 0


async def test_a_digest_has_what_is_new_in_all_feeds_the_newest_first_and_each_once(
    real: Workshop, site: NewsSite
) -> None:
    digest = await made(real)
    assert digest["night"] == "2026-11-23"
    assert titles(digest) == ["Article 4", "Article 3", "Article 2", "Article 1"]
    assert [feed["articles"] for feed in digest["feeds"]] == [3, 2]
    assert {path: site.times(path) for path in (f"/article/{n}" for n in range(1, 5))} == dict.fromkeys(
        (f"/article/{n}" for n in range(1, 5)), 1
    )


async def test_an_article_is_in_one_digest_only_and_a_feed_that_has_not_changed_is_not_sent(
    real: Workshop, site: NewsSite
) -> None:
    await made(real)
    site.feeds["world"].insert(0, 5)
    second = await made(real, TUESDAY)
    assert titles(second) == ["Article 5"]
    assert (site.asked["/town.xml", 200], site.asked["/town.xml", 304]) == (1, 1)
    assert [site.times(f"/article/{n}") for n in range(1, 6)] == [1] * 5


async def test_a_night_has_one_digest_and_who_asks_again_is_told_it_and_nobody_is_mailed_twice(
    real: Workshop, site: NewsSite, configure: Configure, tmp_path: Path
) -> None:
    configure(digest_feeds=[site.feed("world")], digest_to=["ada@example.com", "bob@example.com"])
    first = await made(real)
    site.feeds["world"].insert(0, 5)
    again = await made(real)
    assert (first["outcome"], again["outcome"]) == ("made", "made_before")
    assert {name: again[name] for name in ("title", "summary", "items", "feeds")} == {
        name: first[name] for name in ("title", "summary", "items", "feeds")
    }
    assert again["mail"] is None
    [mail] = (tmp_path / "outbox").iterdir()
    assert f"{first['mail']['message_id'].strip('<>')}.eml" == mail.name
    assert b"To: ada@example.com, bob@example.com" in mail.read_bytes()
    assert site.times("/world.xml") == 1


async def test_a_mail_that_was_refused_is_sent_by_a_retry_which_reads_and_summarises_nothing_again(
    real: Workshop, site: NewsSite, configure: Configure
) -> None:
    with mailbox("550 No") as box:
        configure(digest_feeds=[site.feed("world")], digest_to=["ada@example.com"], smtp_url=SecretStr(box.url))
        failed = await performed(real)
        assert (failed.state, await real.value("SELECT count(*) FROM digests")) == ("failed", 1)
        box.answer = "250 OK"
        configure(digest_to=["ada@example.com"], smtp_url=SecretStr(box.url), stub_generation=False)
        await service.retry(real.engine, failed.id)
        await real.drain_all()
        assert (await real.get(failed)).state == "succeeded"
    assert [mail["Message-ID"] for mail in box.got] == [f"<{failed.id}@localhost>"]
    assert [site.times(path) for path in ("/world.xml", "/article/1")] == [1, 1]


async def test_a_feed_that_is_down_is_told_and_the_digest_is_made_of_the_others(real: Workshop, site: NewsSite) -> None:
    site.broken["/town.xml"] = 503
    digest = await made(real)
    assert titles(digest) == ["Article 3", "Article 2", "Article 1"]
    assert "answered 503" in digest["feeds"][1]["problem"]
    assert await real.value("SELECT problem FROM feeds WHERE url = :url", url=site.feed("town")) is not None
    site.broken.clear()
    assert titles(await made(real, TUESDAY)) == ["Article 4"]
    assert await real.value("SELECT count(*) FROM feeds WHERE problem IS NOT NULL") == 0


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        (b"<html>Welcome", "sent neither RSS nor Atom"),
        (b"<rss>" + b"x" * MAX_FEED_BYTES, "answered with more than 2,097,152 bytes"),
    ],
    ids=["page", "huge"],
)
async def test_what_is_wrong_with_a_feed_is_its_own_problem(
    real: Workshop, site: NewsSite, says: bytes, problem: str
) -> None:
    site.says["/town.xml"] = says
    digest = await made(real)
    assert titles(digest) == ["Article 3", "Article 2", "Article 1"]
    assert [problem in (feed["problem"] or "") for feed in digest["feeds"]] == [False, True]


async def test_when_all_feeds_are_down_the_run_is_retried_and_asks_them_again(real: Workshop, site: NewsSite) -> None:
    site.broken |= {"/town.xml": 503, "/world.xml": 404}
    run = await real.submit(ACTION, timestamp=int(MONDAY.timestamp()))
    await real.drain()
    waiting = await real.get(run)
    assert (waiting.state, waiting.attempt) == ("retrying", 1)
    site.broken.clear()
    await real.drain_all()
    ended = await real.get(run)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    assert len(ended.result["items"]) == 4


async def test_when_no_feed_will_ever_be_there_the_run_fails_at_once(real: Workshop, site: NewsSite) -> None:
    site.broken |= {"/town.xml": 404, "/world.xml": 404}
    run = await performed(real)
    assert (run.state, run.attempt) == ("failed", 1)
    assert "None of the 2 feeds can be read. One says: 127.0.0.1 answered 404." in str(run.error)


async def test_an_article_that_cannot_be_read_is_told_as_the_feed_tells_it(real: Workshop, site: NewsSite) -> None:
    site.broken["/article/2"] = 500
    digest = await made(real)
    assert "Article 2" in titles(digest)
    texts = await real.fetch("SELECT result FROM run_steps WHERE name LIKE 'article-%'")
    told = sorted(row["result"] for row in texts)
    assert told[0] == "About 2."
    assert all(text.startswith("This is what article") for text in told[1:])


async def test_a_site_whose_robots_txt_forbids_its_articles_is_not_read(real: Workshop, configure: Configure) -> None:
    with news_site(robots=[], world=[1]) as site:
        site.broken["/robots.txt"] = 503
        configure(digest_feeds=[site.feed("world")])
        assert titles(await made(real)) == ["Article 1"]
    assert site.times("/article/1") == 0


async def test_there_is_room_for_twenty_articles_and_the_others_are_counted(
    real: Workshop, configure: Configure
) -> None:
    with news_site(a=[*range(1, 13)], b=[*range(13, 24)], c=[24]) as site:
        configure(digest_feeds=[*map(site.feed, "abc")])
        digest = await made(real)
        assert (len(digest["items"]), digest["passed_over"]) == (20, 4)
        assert (await made(real, TUESDAY))["outcome"] == "nothing_new"


async def test_a_night_is_this_one_unless_it_is_said(real: Workshop, site: NewsSite) -> None:
    assert (await made(real, None))["night"] == str(datetime.now(UTC).date())


async def test_three_missed_nights_are_one_run_of_the_newest(real: Workshop) -> None:
    scheduler = Scheduler(real.queue.connector, tasks.procrastinate_app.schedules, real.queue.tasks)
    await scheduler.fire_due()
    await real.execute(
        "UPDATE schedules SET last_tick = now() - interval '3 days' WHERE task_name = :name", name=ACTION
    )
    for _ in range(3):
        await scheduler.fire_due()
    [run] = await real.fetch("SELECT params FROM action_runs WHERE action = :name", name=ACTION)
    tick = datetime.fromtimestamp(run["params"]["timestamp"], UTC)
    assert (tick.hour, tick.minute) == (2, 0)
    assert timedelta(0) <= datetime.now(UTC) - tick < timedelta(days=1)
