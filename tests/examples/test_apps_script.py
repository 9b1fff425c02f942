"""The Apps Script of examples/, in Node, against a real API: one run whatever goes wrong, and politely."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.detour import detour
from tests.support.eventually import eventually
from tests.support.processes import free_port
from tests.support.serving import open_api, serving
from tests.support.workshop import Workshop

from app import tasks
from app.config import ROOT
from app.domain.scraping.page import ScrapedPage
from app.domain.scraping.page import scrape_page as scrape
from app.domain.text.words import WordCount, count, merge
from app.runs.context import Run

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node, which CI has")

NOON = 1_700_000_000_000
MINUTE = 60_000
PATIENT = 30_000
"""Milliseconds before the end of its time within which the script does not begin another look."""

Sleeper = Callable[[int], Awaitable[None]]
"""What happens while the script sleeps, for the first, second, … time."""


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    @workshop.action()
    async def echo(message: str) -> tasks.Echo:
        return tasks.Echo(message=message)

    @workshop.action()
    async def count_words(text: str) -> WordCount:
        return merge([count(text)])

    @workshop.action()
    async def scrape_page(run: Run, url: str) -> ScrapedPage:
        return await scrape(run.clients.web, url)


@pytest.fixture
async def api(workshop: Workshop) -> AsyncIterator[str]:
    async with api_at(0, workshop) as url:
        yield url


@pytest.fixture
async def work(workshop: Workshop) -> AsyncIterator[Sleeper]:
    """A worker; and while the script sleeps, what was submitted is performed."""

    async def perform(_: int) -> None:
        await all_ended(workshop)

    async with workshop.working():
        yield perform


async def test_a_click_runs_the_action_and_writes_its_result(api: str, work: Sleeper, tmp_path: Path) -> None:
    sheet = Sheet(tmp_path, api, ACTION="echo", PARAMS='{"message": "=1+1"}')
    seen = await sheet.click(on_sleep=work)
    post, *looks = seen.fetched
    assert post["method"] == "post"
    assert post["headers"]["X-ROADMAP-AI-SECRET"] == "dev-secret"
    assert post["headers"]["Idempotency-Key"]
    assert {(look["method"], look["headers"]["Prefer"]) for look in looks} == {("get", "wait=25")}
    assert seen.said == ["Syncing …", "The backlog is synced."]
    assert sheet.cells["state"] == "succeeded"
    assert sheet.cells["result.message"] == "'=1+1", "text that looks like a formula stays text"
    assert sheet.remembers is None
    assert sheet.triggers == []


async def test_a_result_of_many_lines_finds_room(api: str, work: Sleeper, tmp_path: Path) -> None:
    sheet = Sheet(tmp_path, api, ACTION="count_words", PARAMS='{"text": "a b c d e f g h i j k l m n o p"}')
    await sheet.click(on_sleep=work)
    assert sheet.cells["result.total"] == 16
    assert len(sheet.cells) > 10


async def test_a_script_that_is_told_to_wait_waits_that_long(api: str, work: Sleeper, tmp_path: Path) -> None:
    busy = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    async with detour(int(api.rpartition(":")[2]), [busy, busy]) as url:
        sheet = Sheet(tmp_path, url)
        seen = await sheet.click(on_sleep=work)
    assert min(seen.slept[:2]) >= 7_000
    assert len({post["headers"]["Idempotency-Key"] for post in seen.posts}) == 1
    assert len(seen.posts) == 3
    assert sheet.cells["state"] == "succeeded"


async def test_an_api_that_was_away_is_asked_again_with_the_same_key(
    workshop: Workshop, engine: AsyncEngine, work: Sleeper, tmp_path: Path
) -> None:
    port = free_port()
    sheet = Sheet(tmp_path, f"http://127.0.0.1:{port}")
    async with contextlib.AsyncExitStack() as stack:

        async def come_back(sleeps: int) -> None:
            if sleeps == 3:
                await stack.enter_async_context(api_at(port, workshop))
            await work(sleeps)

        seen = await sheet.click(on_sleep=come_back)
    assert len(seen.posts) == 4
    assert len({post["headers"]["Idempotency-Key"] for post in seen.posts}) == 1
    assert all(least <= pause / 1000 < least + 1 for least, pause in zip((1, 2, 4), seen.slept, strict=False))
    assert sheet.cells["state"] == "succeeded"
    assert await runs(engine) == 1


async def test_a_lost_answer_leads_to_the_same_run(
    api: str, engine: AsyncEngine, work: Sleeper, tmp_path: Path
) -> None:
    async with detour(int(api.rpartition(":")[2]), ["lost"]) as url:
        sheet = Sheet(tmp_path, url)
        seen = await sheet.click(on_sleep=work)
    assert len(seen.posts) == 2
    assert sheet.cells["state"] == "succeeded"
    assert await runs(engine) == 1


async def test_a_long_run_is_handed_over_to_a_trigger_which_finishes_it(
    api: str, workshop: Workshop, engine: AsyncEngine, tmp_path: Path
) -> None:
    sheet = Sheet(tmp_path, api)
    seen = await sheet.click(impatient=True)
    assert seen.said[-1].startswith("The run is queued. The sheet will be filled")
    assert 5 * MINUTE - 2 * PATIENT - 25_000 < seen.ended - NOON < 5 * MINUTE
    assert [pause < 31_000 for pause in seen.slept] == [True] * len(seen.slept)
    assert len(seen.fetched) < 12
    (first,) = sheet.triggers
    assert first == {"handler": "continueSync", "at": seen.ended + MINUTE}

    seen = await sheet.fire(impatient=True)
    assert len(seen.fetched) <= 2
    (second,) = sheet.triggers
    assert second["at"] == seen.ended + 2 * MINUTE, "each time later: triggers have a quota"

    async with workshop.working():
        await all_ended(workshop)
    seen = await sheet.fire()
    assert seen.posts == []
    assert seen.said == ["The backlog is synced."]
    assert sheet.cells["state"] == "succeeded"
    assert (sheet.triggers, sheet.remembers, await runs(engine)) == ([], None, 1)


async def test_a_failed_run_is_shown(api: str, work: Sleeper, tmp_path: Path) -> None:
    sheet = Sheet(tmp_path, api, ACTION="scrape_page", PARAMS=json.dumps({"url": f"{api}/nothing-here"}))
    seen = await sheet.click(on_sleep=work)
    assert seen.said[-1].startswith("The sync has failed. ")
    assert (sheet.cells["state"], sheet.cells["error.title"]) == ("failed", "Rejected")
    assert sheet.remembers is None


async def test_a_run_that_fails_under_a_trigger_is_told_without_a_dialogue(
    api: str, workshop: Workshop, engine: AsyncEngine, tmp_path: Path
) -> None:
    sheet = Sheet(tmp_path, api, ACTION="scrape_page", PARAMS=json.dumps({"url": f"{api}/nothing-here"}))
    await sheet.click(impatient=True)
    async with workshop.working():
        await all_ended(workshop)
    seen = await sheet.fire()
    assert seen.said[-1].startswith("The sync has failed. ")
    assert seen.failed is None


async def test_a_menu_that_is_clicked_twice_starts_one_run(
    api: str, engine: AsyncEngine, work: Sleeper, tmp_path: Path
) -> None:
    # The API is slow to say so, and the second click comes before the first has a run.
    busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    async with detour(int(api.rpartition(":")[2]), [busy]) as url:
        sheet = Sheet(tmp_path, url)
        second: list[Seen] = []

        async def click_again(sleeps: int) -> None:
            if sleeps <= 2:
                second.append(await sheet.click())
            else:
                await work(sleeps)

        first = await sheet.click(on_sleep=click_again)
    assert first.said == ["Syncing …", "The backlog is synced."]
    for other in second:
        assert other.said == ["A sync is already under way. Its result will be written into this sheet."]
        assert other.fetched == []
    assert len(second) >= 1
    assert await runs(engine) == 1


async def test_a_click_after_an_execution_that_was_stopped_goes_on_with_its_key(
    workshop: Workshop, engine: AsyncEngine, work: Sleeper, tmp_path: Path
) -> None:
    port = free_port()
    sheet = Sheet(tmp_path, f"http://127.0.0.1:{port}")
    stopped = await sheet.click(stop_at_first_sleep=True)
    assert (await sheet.click()).said == ["A sync is already under way. Its result will be written into this sheet."]
    async with api_at(port, workshop):
        seen = await sheet.click(now=NOON + 7 * MINUTE, on_sleep=work)
    assert seen.posts[0]["headers"]["Idempotency-Key"] == stopped.posts[0]["headers"]["Idempotency-Key"]
    assert sheet.cells["state"] == "succeeded"
    assert await runs(engine) == 1


async def test_what_the_api_refuses_is_said_and_forgotten(api: str, tmp_path: Path) -> None:
    sheet = Sheet(tmp_path, api, ACTION="nothing")
    seen = await sheet.click()
    assert seen.said[-1].startswith("The sync did not work. Unknown action (404).")
    assert (len(seen.posts), seen.slept, sheet.remembers) == (1, [], None)


async def test_a_wrong_secret_can_be_set_right_and_the_sync_goes_on(api: str, work: Sleeper, tmp_path: Path) -> None:
    sheet = Sheet(tmp_path, api, ROADMAP_AI_SECRET="wrong")
    refused = await sheet.click()
    assert refused.said[-1].startswith("The sync did not work. Unauthorized (401).")
    sheet.configure(ROADMAP_AI_SECRET="dev-secret")
    seen = await sheet.click(on_sleep=work)
    assert seen.posts[0]["headers"]["Idempotency-Key"] == refused.posts[0]["headers"]["Idempotency-Key"]
    assert sheet.cells["state"] == "succeeded"


async def test_a_sheet_that_is_not_set_up_says_what_to_set(tmp_path: Path) -> None:
    sheet = Sheet(tmp_path, "http://127.0.0.1:1", PARAMS="{")
    assert "The script property PARAMS is not JSON" in ((await sheet.click()).failed or "")
    sheet.configure(PARAMS="{}", RUNLEDGER_URL="")
    assert "Set the script property RUNLEDGER_URL" in ((await sheet.click()).failed or "")


async def test_the_menu_has_the_sync(tmp_path: Path) -> None:
    seen = await Sheet(tmp_path, "http://127.0.0.1:1").execute("onOpen", now=NOON)
    assert [event for event in seen.events if "ended" not in event] == [
        {"menu": "Roadmap"},
        {"item": "Sync backlog", "handler": "syncBacklog"},
    ]


@dataclass
class Seen:
    """What an execution did."""

    events: list[dict[str, Any]]

    def _all(self, name: str) -> list[Any]:
        return [event[name] for event in self.events if name in event]

    @property
    def fetched(self) -> list[dict[str, Any]]:
        return [event for event in self.events if "fetched" in event]

    @property
    def posts(self) -> list[dict[str, Any]]:
        return [event for event in self.fetched if event["method"] == "post"]

    @property
    def slept(self) -> list[float]:
        """Milliseconds."""
        return self._all("slept")

    @property
    def said(self) -> list[str]:
        """Toasts and alerts."""
        return [event.get("toast") or event["alert"] for event in self.events if {"toast", "alert"} & event.keys()]

    @property
    def failed(self) -> str | None:
        return next(iter(self._all("failed")), None)

    @property
    def ended(self) -> float:
        return self._all("ended")[0]


class Sheet:
    """A Google Sheet with the script: its properties, triggers and cells are files in a folder."""

    def __init__(self, folder: Path, url: str, **properties: str) -> None:
        self.store = folder / "sheet"
        self.store.mkdir()
        given = {"ACTION": "count_words", "PARAMS": '{"text": "to be or not to be"}', "ROADMAP_AI_SECRET": "dev-secret"}
        self.configure(RUNLEDGER_URL=url, **given | properties)

    def configure(self, **properties: str) -> None:
        (self.store / "script.json").write_text(json.dumps(self._read("script", {}) | properties))

    async def click(self, now: float = NOON, **options: Any) -> Seen:
        return await self.execute("syncBacklog", now=now, **options)

    async def fire(self, **options: Any) -> Seen:
        """The only trigger, when its time has come. Nobody looks at the sheet."""
        (trigger,) = self.triggers
        return await self.execute(trigger["handler"], now=trigger["at"], ui=False, **options)

    async def execute(
        self,
        function: str,
        *,
        now: float,
        ui: bool = True,
        impatient: bool = False,
        on_sleep: Sleeper | None = None,
        stop_at_first_sleep: bool = False,
    ) -> Seen:
        """One execution, to its end.

        Args:
            on_sleep: called with 1, 2, … each time that the script sleeps, which goes on when this returns.
        """
        given = {"function": function, "now": now, "ui": ui, "impatient": impatient, "store": str(self.store)}
        code = {"code": str(ROOT / "examples/apps-script/Code.gs")}
        process = await asyncio.create_subprocess_exec(
            "node",
            ROOT / "tests/examples/execute.cjs",
            json.dumps(given | code),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin and process.stdout
        events: list[dict[str, Any]] = []
        async for line in process.stdout:
            events.append(json.loads(line))
            if "slept" in events[-1]:
                if stop_at_first_sleep:
                    process.kill()
                    break
                if on_sleep:
                    await on_sleep(len([event for event in events if "slept" in event]))
                process.stdin.write(b"\n")
        await process.wait()
        assert stop_at_first_sleep or process.returncode == 0
        return Seen(events)

    @property
    def cells(self) -> dict[str, Any]:
        return dict(self._read("sheets", {})["Sync backlog"]["values"])

    @property
    def triggers(self) -> list[dict[str, Any]]:
        return [{"handler": each["handler"], "at": each["at"]} for each in self._read("triggers", [])]

    @property
    def remembers(self) -> str | None:
        """What is under way."""
        return self._read("document", {}).get("sync")

    def _read(self, name: str, otherwise: Any) -> Any:
        file = self.store / f"{name}.json"
        return json.loads(file.read_text()) if file.exists() else otherwise


@contextlib.asynccontextmanager
async def api_at(port: int, workshop: Workshop) -> AsyncIterator[str]:
    """The API on a port, which somebody may ask already."""
    async with open_api(workshop) as app, serving(app, port=port) as port:
        yield f"http://127.0.0.1:{port}"


async def runs(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT count(*) FROM action_runs")) or 0


async def all_ended(workshop: Workshop) -> None:
    async def ended() -> bool:
        return not await workshop.value("SELECT count(*) FROM action_runs WHERE finished_at IS NULL")

    await eventually(ended, within=60)
