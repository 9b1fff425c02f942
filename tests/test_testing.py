"""The test kit: an action is performed without a database, and tells what it did."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from pydantic import BaseModel
from scripts.sites import DemoSite
from starlette.responses import PlainTextResponse
from tests.support.workshop import Workshop

from app.config import Settings
from app.errors import ChildFailed, InvalidInput, RateLimited, SignalTimeout, Unavailable
from app.outbound.clients import STUBS, open_clients
from app.runs.context import Run
from app.tasks import action as real
from app.testing import Spawned, perform


class Page(BaseModel):
    words: int


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    """The kit asks for none of this: the workshop is where a test may define actions."""

    @workshop.action()
    async def approved(run: Run) -> Any:
        return await run.wait_for("approved", timeout=60)

    @workshop.action()
    async def totals(run: Run, policy: Any = "cancel") -> list[Any]:
        first = await run.spawn("double", {"number": 1})
        return [each.result for each in await run.gather([first, ("double", {"number": 2})], policy=policy)]


async def test_an_action_is_performed_and_tells_its_result_and_progress() -> None:
    done = await perform(real["count_words"], {"text": "to be or not to be"})
    assert done.result["total"] == 6
    assert list(done.steps) == [f"part-{n}" for n in range(1, 7)]
    assert done.progress[-1] == (6, 6, "part 6 of 6")


async def test_a_plain_function_without_a_run_is_performed_too() -> None:
    assert (await perform(real["echo"], {"message": "hi"})).result == {"message": "hi"}


async def test_a_run_belongs_to_whom_the_test_says(workshop: Workshop) -> None:
    @workshop.action()
    async def whose(run: Run) -> Any:
        return run.owner

    assert (await perform(workshop.action["whose"])).result is None
    assert (await perform(workshop.action["whose"], owner="ada")).result == "ada"


async def test_params_are_checked_as_when_they_are_submitted() -> None:
    with pytest.raises(InvalidInput):
        await perform(real["echo"], {"message": 7})


async def test_an_error_is_an_ending_and_a_retry_goes_on_after_the_finished_steps(workshop: Workshop) -> None:
    calls: list[str] = []

    async def fetch() -> Page:
        calls.append("fetch")
        return Page(words=3)

    @workshop.action()
    async def summarise(run: Run) -> int:
        page = await run.step("fetch", fetch)
        await run.log("fetched", words=page.words)
        if run.attempt == 1:
            raise Unavailable("later")
        return page.words

    first = await perform(workshop.action["summarise"])
    assert isinstance(first.error, Unavailable)
    with pytest.raises(Unavailable):
        _ = first.result
    second = await perform(workshop.action["summarise"], after=first)
    assert (second.attempt, second.result, second.steps) == (2, 3, {"fetch": {"words": 3}})
    assert second.logs == [{"level": "info", "message": "fetched", "words": 3}]
    assert calls == ["fetch"]


async def test_an_action_that_is_asked_to_wait_uses_no_attempt(workshop: Workshop) -> None:
    @workshop.action()
    async def ask(run: Run, busy: bool) -> int:
        if busy:
            raise RateLimited("later", retry_after=1)
        return run.attempt

    first = await perform(workshop.action["ask"], {"busy": True})
    assert (await perform(workshop.action["ask"], {"busy": False}, after=first)).result == 1


async def test_what_cannot_be_stored_is_found_here(workshop: Workshop) -> None:
    async def bad() -> str:
        return "\x00"

    @workshop.action()
    async def unstorable(run: Run) -> None:
        await run.step("bad", bad)

    assert isinstance((await perform(workshop.action["unstorable"])).error, InvalidInput)


async def test_children_become_what_the_test_says(workshop: Workshop) -> None:
    done = await perform(workshop.action["totals"], children={"double": lambda params: 2 * params["number"]})
    assert done.result == [2, 4]
    assert done.children == [Spawned("double", {"number": 1}), Spawned("double", {"number": 2})]
    assert (await perform(workshop.action["totals"], children={"double": 9})).result == [9, 9]


async def test_children_may_fail(workshop: Workshop) -> None:
    failing = {"double": Unavailable("no")}
    assert isinstance((await perform(workshop.action["totals"], children=failing)).error, ChildFailed)
    done = await perform(workshop.action["totals"], {"policy": "continue"}, children=failing)
    assert done.result == [None, None]


async def test_a_child_that_the_test_says_nothing_of_is_named(workshop: Workshop) -> None:
    done = await perform(workshop.action["totals"])
    assert "children={'double': …}" in str(done.error)


async def test_signals_come_do_not_come_and_come_too_late(workshop: Workshop) -> None:
    waits = await perform(workshop.action["approved"])
    assert waits.waits_for == "approved"
    assert (await perform(workshop.action["approved"], after=waits, signals={"approved": "yes"})).result == "yes"
    late = await perform(workshop.action["approved"], signals={"approved": SignalTimeout()})
    assert isinstance(late.error, SignalTimeout)


async def test_the_web_is_the_real_client() -> None:
    with DemoSite() as site:
        done = await perform(real["scrape_page"], {"url": f"{site.url}/"})
    assert done.result["title"] == "How lighthouses learned to blink"
    assert done.calls == [], "the web has no stub"


async def test_the_stubs_tell_what_they_were_asked(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STUBS, "toy", PlainTextResponse("hello"))
    urls: list[str] = []

    def open_and_note(settings: Settings) -> Any:
        urls.append(f"{settings.stubs_url}/toy/greeting")
        return open_clients(settings)

    monkeypatch.setattr("app.testing.open_clients", open_and_note)

    @workshop.action()
    async def asks(text: str) -> int:
        async with httpx2.AsyncClient() as client:
            return (await client.get(urls[-1], params={"q": text})).status_code

    assert (await perform(workshop.action["asks"], {"text": "hi"})).result == 200
    troubled = await perform(workshop.action["asks"], {"text": "[stub:500]"})
    assert troubled.result == 500
    assert troubled.calls == [{"vendor": "toy", "path": "/greeting", "trouble": "500"}]
