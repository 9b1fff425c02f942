"""The client, over broken connections."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx2
import pytest
from typing_extensions import override

from runledger_client import Client, Event, Refused, TryLater, Unreachable, requests
from runledger_client import client as module

URL = "http://127.0.0.1:8000"
RUN = {
    "id": "run_1", "action": "echo", "state": "queued", "params": {}, "result": None, "error": None, "progress": None,
    "attempt": 0, "max_attempts": 5, "queue": "default", "priority": 0, "lock": None, "tags": [],
    "created_at": "2026-11-25T08:15:00.123456Z", "schedule_at": None, "started_at": None, "finished_at": None,
    "links": {"self": "/runs/run_1"}, "added_later": [1],
}  # fmt: skip
PROBLEM = {"Content-Type": "application/problem+json"}


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
        self.keys: list[str | None] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.keys.append(request.headers.get("Idempotency-Key"))
        if request.url.path.endswith("/events"):
            self.asked_after.append(request.headers["Last-Event-ID"])
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECONNECT_SECONDS", 0)
    monkeypatch.setattr(requests, "FIRST_PAUSE_SECONDS", 0)


async def follow(api: Api) -> list[Event]:
    async with Client(URL, transport=httpx2.MockTransport(api)) as client:
        return [event async for event in client.stream("run_1")]


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
    api = Api(
        stream(sse(1, "state")),
        httpx2.ConnectError("refused"),
        httpx2.Response(503, headers=PROBLEM, json={"title": "The database is not available"}),
        httpx2.Response(502, headers={"Content-Type": "text/html"}),
        stream(sse(2, "end")),
    )
    assert [event.type for event in await follow(api)] == ["state", "end"]
    assert api.asked_after == ["", "1", "1", "1", "1"]


async def test_a_run_that_ended_while_nobody_listened_is_read() -> None:
    run = {**RUN, "state": "succeeded"}
    api = Api(stream(sse(7, "state"), breaks=True), httpx2.Response(204), httpx2.Response(200, json=run))
    assert (await follow(api))[-1] == Event("7", "end", run)


async def test_an_api_that_never_answered_is_not_waited_for() -> None:
    with pytest.raises(Unreachable, match="does not answer"):
        await follow(Api(httpx2.ConnectError("refused")))


async def test_an_api_that_stays_away_is_given_up() -> None:
    away = [httpx2.ConnectError("refused") for _ in range(module.RECONNECTS + 1)]
    with pytest.raises(Unreachable, match="does not answer"):
        await follow(Api(stream(sse(1, "state")), *away))


def away() -> httpx2.Response:
    problem = {"type": "/problems/database-unavailable", "title": "The database is not available"}
    return httpx2.Response(503, headers=PROBLEM | {"Retry-After": "0"}, json=problem)


async def test_a_submission_whose_answer_is_lost_is_sent_again_under_the_same_key() -> None:
    api = Api(httpx2.ReadError("reset"), away(), httpx2.ConnectError("refused"), httpx2.Response(202, json=RUN))
    async with Client(URL, transport=httpx2.MockTransport(api)) as client:
        run = await client.submit("echo")
    assert (run.id, len(api.keys), len(set(api.keys))) == ("run_1", 4, 1)
    assert str(api.keys[0]).startswith('"')


async def test_two_submissions_are_two_unless_they_say_otherwise() -> None:
    api = Api(*(httpx2.Response(202, json=RUN) for _ in range(4)))
    async with Client(URL, transport=httpx2.MockTransport(api)) as client:
        for key in (None, None, "order-7", "order-7"):
            await client.submit("echo", idempotency_key=key)
    assert len(set(api.keys)) == 3
    assert api.keys[2:] == ['"order-7"', '"order-7"']


async def test_an_api_that_was_never_there_is_not_asked_again() -> None:
    api = Api(httpx2.ConnectError("refused"))
    async with Client(URL, transport=httpx2.MockTransport(api)) as client:
        with pytest.raises(Unreachable):
            await client.submit("echo")


async def test_what_must_not_be_done_twice_is_not() -> None:
    api = Api(httpx2.Response(202, json=RUN), away())
    async with Client(URL, transport=httpx2.MockTransport(api)) as client:
        await client.submit("echo")
        with pytest.raises(TryLater) as refused:
            await client.retry("run_1")
    assert (refused.value.status, refused.value.problem.slug) == (503, "database-unavailable")


async def test_a_refusal_has_the_problem_and_is_not_asked_for_again() -> None:
    problem = {"type": "/problems/invalid-input", "title": "Invalid input", "status": 422,
               "errors": [{"pointer": "/params/x", "detail": "no", "type": "t"}]}  # fmt: skip
    api = Api(httpx2.Response(422, headers=PROBLEM, json=problem))
    async with Client(URL, transport=httpx2.MockTransport(api)) as client:
        with pytest.raises(Refused) as refused:
            await client.submit("echo")
    assert [fault.pointer for fault in refused.value.problem.errors] == ["/params/x"]


async def test_what_a_newer_api_adds_is_kept_as_it_was_sent() -> None:
    async with Client(URL, transport=httpx2.MockTransport(Api(httpx2.Response(200, json=RUN)))) as client:
        assert (await client.get("run_1")).as_json() == RUN


@pytest.mark.parametrize(
    "url", ["nonsense", "127.0.0.1:8000", "ftp://example.com", "http://", "http://a:b", "http://a\x00"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not a URL"):
        Client(url)
