"""The client, over broken connections."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx2
import pytest
from typing_extensions import override

from app.cli import client as module
from app.cli.client import Client
from app.cli.events import Event
from app.cli.failure import NotReached
from app.config import Settings

URL = "http://127.0.0.1:8000"


def sse(number: int, type_: str) -> bytes:
    return f"id: {number}\nevent: {type_}\ndata: {json.dumps({'number': number})}\n\n".encode()


class Breaking(httpx2.AsyncByteStream):
    """Sends some events, and then breaks off."""

    def __init__(self, *events: bytes) -> None:
        self._events = events

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in self._events:
            yield event
        raise httpx2.ReadError("connection reset")


class Api:
    """Answers what it is told to, one answer a request, and remembers what each asked to resume after."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self._answers = list(answers)
        self.asked_after: list[str] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/events"):
            self.asked_after.append(request.headers["Last-Event-ID"])
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECONNECT_SECONDS", 0)


async def follow(api: Api) -> list[Event]:
    client = Client(Settings(_env_file=None))  # pyright: ignore[reportCallIssue]
    client._http = httpx2.AsyncClient(base_url=URL, transport=httpx2.MockTransport(api))
    async with client:
        return [event async for event in client.follow("/runs/run_1")]


def stream(*events: bytes, breaks: bool = False) -> httpx2.Response:
    headers = {"Content-Type": "text/event-stream"}
    if breaks:
        return httpx2.Response(200, headers=headers, stream=Breaking(*events))
    return httpx2.Response(200, headers=headers, content=b"".join(events))


async def test_a_broken_stream_is_resumed_after_the_last_event_seen() -> None:
    api = Api(stream(sse(1, "state"), breaks=True), stream(sse(2, "state"), sse(2, "end")))
    assert [(event.id, event.type) for event in await follow(api)] == [("1", "state"), ("2", "state"), ("2", "end")]
    assert api.asked_after == ["", "1"]


async def test_an_api_that_restarts_is_asked_again() -> None:
    problem = {"Content-Type": "application/problem+json"}
    api = Api(
        stream(sse(1, "state")),
        httpx2.ConnectError("refused"),
        httpx2.Response(503, headers=problem, json={"title": "The database is not available"}),
        httpx2.Response(502, headers={"Content-Type": "text/html"}),
        stream(sse(2, "end")),
    )
    assert [event.type for event in await follow(api)] == ["state", "end"]
    assert api.asked_after == ["", "1", "1", "1", "1"]


async def test_a_run_that_ended_while_nobody_listened_is_read() -> None:
    run = {"id": "run_1", "state": "succeeded"}
    api = Api(stream(sse(7, "state"), breaks=True), httpx2.Response(204), httpx2.Response(200, json=run))
    assert (await follow(api))[-1] == Event("7", "end", run)


async def test_an_api_that_never_answered_is_not_waited_for() -> None:
    with pytest.raises(NotReached, match="does not answer"):
        await follow(Api(httpx2.ConnectError("refused")))


async def test_an_api_that_stays_away_is_given_up() -> None:
    away = [httpx2.ConnectError("refused") for _ in range(module.RECONNECTS + 1)]
    with pytest.raises(NotReached, match="does not answer"):
        await follow(Api(stream(sse(1, "state")), *away))
