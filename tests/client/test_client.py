"""The Python client, against a real API on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.processes import api_process, environment, running, worker_process
from tests.support.serving import open_api, serving
from tests.support.workshop import Workshop

from app.config import ROOT, Settings
from app.domain.text.words import WordCount, count, merge
from app.errors import Rejected
from runledger_client import Client, Event, Refused, RunFailed


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    @workshop.action()
    async def echo(message: str) -> str:
        return message

    @workshop.action()
    async def noop() -> None: ...

    @workshop.action()
    async def count_words(text: str) -> WordCount:
        return merge([count(text)])

    @workshop.action()
    async def reject() -> None:
        raise Rejected("That answered 404.")


@pytest.fixture
async def client(workshop: Workshop) -> AsyncIterator[Client]:
    async with open_api(workshop) as app, serving(app) as port, Client(f"http://127.0.0.1:{port}") as client:
        yield client


async def test_a_run_is_submitted_watched_and_has_a_result(client: Client, workshop: Workshop) -> None:
    async with workshop.working():
        run = await client.submit("count_words", {"text": "to be or not to be"}, tags=["soliloquy"], priority=3)
        events = [event async for event in client.stream(run.id)]
        assert (await client.result(run.id))["total"] == 6
        failed = await client.submit("reject")
        with pytest.raises(RunFailed, match="404") as raised:
            await client.result(failed.id)
    assert raised.value.run.error is not None
    assert raised.value.run.error.slug == "rejected"
    told = [event.data["state"] for event in events if event.type in ("state", "end")]
    assert told == ["queued", "running", "succeeded", "succeeded"]
    assert [each.id for each in (await client.list(tag="soliloquy")).items] == [run.id]
    assert [event async for event in client.stream(run.id, after=events[-3].id)] == events[-2:]
    assert (await client.wait(run.id)).is_final


async def test_every_option_of_a_submission_can_be_said(client: Client) -> None:
    first = await client.submit("noop", delay=3600, max_attempts=9, unique={"key": "k"})
    again = await client.submit("noop", unique={"key": "k", "scope": "waiting", "on_conflict": "return_existing"})
    assert again.id == first.id
    assert (first.state, (await client.get(first.id)).max_attempts) == ("scheduled", 9)


async def test_waiting_has_an_end_and_the_run_goes_on(client: Client) -> None:
    run = await client.submit("echo", {"message": "later"}, schedule_at=datetime(2100, 1, 1, tzinfo=UTC))
    with pytest.raises(TimeoutError):
        await client.wait(run.id, timeout=0.3)
    assert (await client.get(run.id)).state == "scheduled"
    cancelled = await client.cancel(run.id)
    assert (cancelled.state, cancelled.schedule_at) == ("cancelled", run.schedule_at)
    assert (await client.retry(run.id)).state in ("queued", "retrying")


async def test_a_run_is_told_something_and_says_why_it_waits(client: Client) -> None:
    run = await client.submit("echo", {"message": "later"}, delay=3600)
    assert [reason.code for reason in await client.why(run.id)] == ["scheduled", "no_worker"]
    for data in (None, {"by": "ada"}):
        told = await client.signal(run.id, f"approved.{data is None}", data)
        assert (told.run_id, told.data) == (run.id, data)
    assert await client.signal(run.id, "approved.True") == await client.signal(run.id, "approved.True", None)
    with pytest.raises(Refused) as other:
        await client.signal(run.id, "approved.True", "no")
    assert other.value.problem.slug == "signal-sent"


async def test_what_the_api_refuses_is_raised_with_its_problem(client: Client) -> None:
    with pytest.raises(Refused, match="Unknown action") as unknown:
        await client.submit("nothing")
    assert (unknown.value.status, unknown.value.problem.slug) == (404, "unknown-action")
    with pytest.raises(Refused) as missing:
        await client.wait("run_20200101T000000Z_00000000")
    assert missing.value.problem.slug == "run-not-found"


async def test_a_stream_goes_on_where_it_was_when_the_api_restarts(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "log"
    seen: list[Event] = []
    with contextlib.ExitStack() as later:
        later.enter_context(worker_process(settings, log))
        async with api_process(settings, log) as (url, api), Client(url) as client:
            run = await client.submit("sleep", {"seconds": 4})
            async for event in client.stream(run.id):
                seen.append(event)
                if event.type == "progress" and api.poll() is None:
                    api.kill()
                    api.wait()
                    port = url.rpartition(":")[2]
                    arguments = ("-m", "uvicorn", "app.main:app", "--port", port)
                    later.enter_context(running(*arguments, env=environment(settings, PORT=port), log=log))
    assert api.returncode == -signal.SIGKILL
    assert (seen[-1].type, seen[-1].data["state"]) == ("end", "succeeded")
    assert [int(event.id) for event in seen[:-1]] == list(range(1, len(seen)))


async def test_the_example_works_as_it_is(client: Client, workshop: Workshop) -> None:
    async with workshop.working():
        arguments = [sys.executable, str(ROOT / "examples/client.py"), client.url]
        example = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
        output, _ = await example.communicate()
    assert example.returncode == 0
    assert b"'total': 6" in output


async def test_a_secret_and_a_token_are_sent(client: Client) -> None:
    async with Client(client.url, secret="wrong") as wrong:
        with pytest.raises(Refused, match="secret"):
            await wrong.list()
    async with Client(client.url, secret="dev-secret") as right:
        assert (await right.list()).items == []
    async with Client(client.url, token="t") as bearer:
        assert bearer._requests.http.headers["Authorization"] == "Bearer t"
