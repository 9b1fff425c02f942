"""The nightly digest, end to end: a real news site and mail server, and a worker that is killed on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.eventually import eventually
from tests.support.gates import before_step, gate
from tests.support.mailbox import Mailbox, mailbox
from tests.support.news import NewsSite
from tests.support.processes import api_process
from tests.support.stage import Stage, staged

from app.config import Settings
from runledger_client import Client

ACTION = "generate_nightly_news_digest"
NIGHT = datetime(2026, 11, 24, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Newsroom(Stage):
    """The API, a news site and a mail server."""

    client: Client
    site: NewsSite
    box: Mailbox

    async def submit(self, night: datetime) -> str:
        return (await self.client.submit(ACTION, {"timestamp": int(night.timestamp())})).id

    async def result(self, run: str) -> dict[str, Any]:
        ended = f"SELECT finished_at FROM action_runs WHERE id = '{run}'"
        await eventually(lambda: self.value(ended), within=60)
        return await self.client.result(run)


@pytest.fixture
async def stage(settings: Settings, engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Newsroom]:
    with NewsSite(world=[3, 2, 1], town=[4, 3]) as site, mailbox() as box:
        given = {
            "DIGEST_FEEDS": f"{site.feed('world')},{site.feed('town')}",
            "DIGEST_TO": "ada@example.com",
            "SMTP_URL": box.url,
            "MAIL_FROM": "news@example.com",
        }
        async with (
            staged(settings, engine, tmp_path, **given) as stage,
            api_process(settings, stage.log, DATA_DIR=str(tmp_path)) as (url, _),
            Client(url) as client,
        ):
            yield Newsroom(**vars(stage), client=client, site=site, box=box)


@pytest.mark.parametrize("step", ["news", "store"])
async def test_a_worker_killed_before_a_step_is_stored_reads_summarises_and_mails_once(
    stage: Newsroom, step: str
) -> None:
    run = await stage.submit(NIGHT)
    async with gate(stage.engine, before_step(step)) as reached:
        await stage.kill_a_worker(reached)
    with stage.worker():
        digest = await stage.result(run)
        assert (await stage.client.get(run)).attempt == 2

        assert [item["title"] for item in digest["items"]] == [f"Article {n}" for n in (4, 3, 2, 1)]
        paths = ["/world.xml", "/town.xml", *(f"/article/{n}" for n in range(1, 5))]
        assert [stage.site.asked[path, 200] for path in paths] == [1] * len(paths)
        assert await stage.calls() == {"anthropic": 1}
        [mail] = stage.box.got
        assert (mail["To"], mail["Message-ID"]) == ("ada@example.com", f"<{run}@example.com>")
        assert digest["title"] in mail["Subject"]
        assert mail.get_body(("html",)) is not None

        second = await stage.result(await stage.submit(NIGHT + timedelta(days=1)))
    assert second["outcome"] == "nothing_new"
    assert [stage.site.asked[path, 304] for path in paths[:2]] == [1, 1]
    assert sum(stage.site.asked.values()) == len(paths) + 2 + stage.site.times("/robots.txt")
    assert (len(stage.box.got), await stage.calls()) == (1, {"anthropic": 1})
    assert await stage.value("SELECT count(*) FROM digests") == 1
