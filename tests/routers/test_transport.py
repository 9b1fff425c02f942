"""A connection is not held by who says nothing, and a request not by who never ends it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from tests.support.serving import serving
from tests.support.wire import request, send

DEADLINE = 0.2
SLOW = [
    pytest.param([b"GET /ru"], id="half a request line"),
    pytest.param([b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b", b"b" * 100], id="half a header"),
    pytest.param([request("POST", "/", "Content-Length: 100") + b"{"], id="half a body"),
    pytest.param([request("POST", "/", "Transfer-Encoding: chunked") + b"5\r\nab"], id="half a chunk"),
    pytest.param([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /ru"], id="half a second request"),
]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Reads a body and answers with its length; `/slow` takes longer than the deadline."""
    asked = Request(scope, receive)
    try:
        length = len(await asked.body())
    except ClientDisconnect:
        return
    if asked.url.path == "/slow":
        await asyncio.sleep(3 * DEADLINE)
    await PlainTextResponse(str(length))(scope, receive, send)


@pytest.mark.parametrize("parts", SLOW)
async def test_a_request_that_does_not_arrive_in_time_is_408(parts: list[bytes]) -> None:
    async with serving(app, complete_seconds=DEADLINE) as port:
        answer = await send(port, *parts)
        assert b"HTTP/1.1 408" in answer.raw
        assert b"/problems/request-too-slow" in answer.raw
        assert (await send(port, request("GET", "/"))).status == 200


@pytest.mark.parametrize("parts", [[], [b"\r\n\r\n"]], ids=["silence", "empty lines"])
async def test_who_says_nothing_is_left(parts: list[bytes]) -> None:
    async with serving(app, complete_seconds=DEADLINE) as port:
        assert (await send(port, *parts)).status == 0


async def test_the_deadline_is_the_request_s_and_not_the_answer_s() -> None:
    async with serving(app, complete_seconds=DEADLINE) as port:
        assert (await send(port, request("GET", "/slow"))).status == 200
        # Behind it, one that is complete waits for its turn.
        both = request("GET", "/slow").replace(b"Connection: close\r\n", b"") + request("POST", "/", body=b"abc")
        answer = await send(port, both)
        assert answer.raw.count(b"HTTP/1.1 200") == 2
        assert answer.raw.endswith(b"3")


async def test_nothing_is_said_into_an_answer_that_is_under_way() -> None:
    begun = asyncio.Event()

    async def streaming(scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def lines() -> Any:
            yield b"first\n"
            begun.set()
            await asyncio.Event().wait()

        await StreamingResponse(lines())(scope, receive, send)

    async with serving(streaming) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await begun.wait()
        writer.write(b"\x00 nonsense \r\n\r\n")
        told = await reader.read()
        writer.close()
    assert told.startswith(b"HTTP/1.1 200")
    assert b"problem" not in told


async def test_a_body_that_was_asked_about_and_refused_is_not_waited_for() -> None:
    async def refusing(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await PlainTextResponse("no", 413)(scope, receive, send)

    async with serving(refusing) as port:
        asking = request("POST", "/", "Content-Length: 9", "Expect: 100-continue").replace(
            b"Connection: close\r\n", b""
        )
        answer = await send(port, asking, within=5)
        assert answer.status == 413
        assert b"100 Continue" not in answer.raw


async def test_a_header_without_an_end_is_not_kept() -> None:
    async with serving(app) as port:
        answer = await send(port, b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ", *[b"a" * 65_536] * 8, within=5)
        assert answer.status in (431, 0)  # 0: reset while it was still sending
