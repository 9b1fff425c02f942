"""The nightly digest, end to end: a real news site and mail server, and a worker that is killed on the way."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.acceptance.test_adventures import services_process
from tests.support.eventually import eventually
from tests.support.gates import before_step, gate
from tests.support.mailbox import Mailbox, mailbox
from tests.support.news import NewsSite, news_site
from tests.support.processes import api_process, worker_process

from app.config import Settings
from runledger_client import Client

ACTION = "generate_nightly_news_digest"
NIGHT = datetime(2026, 11, 24, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Stage:
    """Everything but a worker."""

    client: Client
    services: str
    site: NewsSite
    box: Mailbox
    settings: Settings
    engine: AsyncEngine
    folder: Path

    def worker(self) -> contextlib.AbstractContextManager[Any]:
        return worker_process(
            self.settings,
            self.folder / "log",
            STUBS_URL=self.services,
            DIGEST_FEEDS=f"{self.site.feed('world')},{self.site.feed('town')}",
            DIGEST_TO="ada@example.com",
            SMTP_URL=self.box.url,
            MAIL_FROM="news@example.com",
            DATA_DIR=str(self.folder),
        )

    async def submit(self, night: datetime) -> str:
        return (await self.client.submit(ACTION, {"timestamp": int(night.timestamp())})).id

    async def result(self, run: str) -> dict[str, Any]:
        ended = f"SELECT finished_at FROM action_runs WHERE id = '{run}'"
        await eventually(lambda: self.value(ended), within=60)
        return await self.client.result(run)

    async def summaries(self) -> int:
        """How often the language model was asked."""
        async with httpx2.AsyncClient(trust_env=False) as http:
            return len((await http.get(f"{self.services}/calls")).json())

    async def value(self, statement: str) -> Any:
        async with self.engine.connect() as connection:
            return await connection.scalar(text(statement))


@pytest.fixture
async def stage(settings: Settings, engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Stage]:
    async with contextlib.AsyncExitStack() as stack:
        site = stack.enter_context(news_site(world=[3, 2, 1], town=[4, 3]))
        box = stack.enter_context(mailbox())
        services = stack.enter_context(services_process(settings, tmp_path / "log"))
        url, _ = await stack.enter_async_context(api_process(settings, tmp_path / "log", DATA_DIR=str(tmp_path)))
        client = await stack.enter_async_context(Client(url))
        yield Stage(client, services, site, box, settings, engine, tmp_path)


@pytest.mark.parametrize("step", ["news", "store"])
async def test_a_worker_killed_before_a_step_is_stored_reads_summarises_and_mails_once(stage: Stage, step: str) -> None:
    run = await stage.submit(NIGHT)
    async with gate(stage.engine, before_step(step)) as reached:
        with stage.worker() as first:
            await reached()
            first.kill()
            first.wait()
    with stage.worker():
        digest = await stage.result(run)
        assert (await stage.client.get(run)).attempt == 2

        assert [item["title"] for item in digest["items"]] == [f"Article {n}" for n in (4, 3, 2, 1)]
        paths = ["/world.xml", "/town.xml", *(f"/article/{n}" for n in range(1, 5))]
        assert [stage.site.asked[path, 200] for path in paths] == [1] * len(paths)
        assert await stage.summaries() == 1
        [mail] = stage.box.got
        assert (mail["To"], mail["Message-ID"]) == ("ada@example.com", f"<{run}@example.com>")
        assert digest["title"] in mail["Subject"]
        assert mail.get_body(("html",)) is not None

        second = await stage.result(await stage.submit(NIGHT + timedelta(days=1)))
    assert second["outcome"] == "nothing_new"
    assert [stage.site.asked[path, 304] for path in paths[:2]] == [1, 1]
    assert sum(stage.site.asked.values()) == len(paths) + 2 + stage.site.times("/robots.txt")
    assert (len(stage.box.got), await stage.summaries()) == (1, 1)
    assert await stage.value("SELECT count(*) FROM digests") == 1
