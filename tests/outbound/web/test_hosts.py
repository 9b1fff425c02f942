"""A host that fails is left alone for a while, and the others are asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx2
import pytest
import time_machine

from app.errors import ActionError, RateLimited, Rejected, Unavailable
from app.outbound.neighbour import FAILURES, RECOVERY_SECONDS
from app.outbound.web.client import WebClient, open_web_client
from app.outbound.web.hosts import REMEMBERED, Hosts

NOW = 1_766_000_000.0  # 19:33:20 UTC
HALF = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 100\r\n\r\n<p>"
"""Of an answer."""


def answer(status: str, *fields: str) -> str:
    return "\r\n".join([f"HTTP/1.1 {status}", "Content-Type: text/html", "Content-Length: 0", *fields, "", ""])


GOOD = answer("200 OK")


@dataclass
class Site:
    """A real HTTP server, which says what it is told to."""

    says: str = GOOD
    url: str = ""
    host: str = ""
    paths: list[str] = field(default_factory=list[str])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.paths.append(head.decode().split()[1])
        writer.write(self.says.encode())
        writer.close()


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Site]:
    site = Site()
    async with await asyncio.start_server(site.serve, "127.0.0.1", 0) as server:
        site.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        site.url = f"http://{site.host}/"
        yield site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving() as site:
        yield site


@pytest.fixture
async def web() -> AsyncIterator[WebClient]:
    async with open_web_client(allow_private=True) as web:
        yield web


async def fail(web: WebClient, url: str, times: int = FAILURES) -> list[type[ActionError]]:
    """Fetch so often; the errors that it came to."""
    errors: list[type[ActionError]] = []
    for _ in range(times):
        with pytest.raises(ActionError) as raised:
            await web.fetch(url)
        errors.append(type(raised.value))
    return errors


@pytest.mark.parametrize(
    ("says", "error", "is_left_alone"),
    [
        (answer("500 Oh"), Unavailable, True),
        (answer("503 Busy"), Unavailable, True),
        (answer("429 Slow down"), Unavailable, True),
        ("", Unavailable, True),
        (HALF, Unavailable, True),
        (answer("404 Not Found"), Rejected, False),
        (answer("410 Gone"), Rejected, False),
        (answer("503 Busy", "Retry-After: 7"), RateLimited, False),
        (answer("302 Found", "Location: file:///etc/passwd"), Rejected, False),
    ],
    ids=["500", "503", "429", "hangs up", "half an answer", "404", "410", "503 that says when", "leads astray"],
)
async def test_what_leaves_a_host_alone_is_that_it_is_not_available(
    site: Site, web: WebClient, says: str, error: type[ActionError], is_left_alone: bool
) -> None:
    site.says = says
    assert await fail(web, site.url) == [error] * FAILURES
    site.says = GOOD
    if is_left_alone:
        assert await fail(web, site.url, 1) == [RateLimited]
    else:
        await web.fetch(site.url)
    assert len(site.paths) == (FAILURES if is_left_alone else FAILURES + 1)


async def test_who_is_left_alone_is_said_and_until_when(site: Site, web: WebClient) -> None:
    site.says = answer("500 Oh")
    with time_machine.travel(NOW, tick=False) as clock:
        await fail(web, site.url)
        clock.shift(10)
        with pytest.raises(RateLimited) as raised:
            await web.fetch(site.url)
    assert str(raised.value) == f"{site.host} has failed 5 times in a row and is left alone until 19:33:50 UTC."
    assert raised.value.retry_after == RECOVERY_SECONDS - 10


async def test_a_host_is_asked_again_after_its_time_and_left_alone_anew_if_it_still_fails(
    site: Site, web: WebClient
) -> None:
    site.says = answer("500 Oh")
    with time_machine.travel(NOW, tick=False) as clock:
        await fail(web, site.url)
        clock.shift(RECOVERY_SECONDS + 1)
        assert await fail(web, site.url, 2) == [Unavailable, RateLimited]
        clock.shift(RECOVERY_SECONDS + 1)
        site.says = GOOD
        await web.fetch(site.url)
        site.says = answer("500 Oh")
        assert await fail(web, site.url) == [Unavailable] * FAILURES


async def test_the_other_hosts_are_asked(site: Site, web: WebClient) -> None:
    site.says = answer("500 Oh")
    await fail(web, site.url)
    async with serving() as other:
        await web.fetch(other.url)


async def test_a_host_that_others_redirect_to_is_the_one_that_has_failed(site: Site, web: WebClient) -> None:
    async with serving() as broken:
        broken.says = answer("500 Oh")
        site.says = answer("302 Found", f"Location: {broken.url}")
        assert await fail(web, site.url, FAILURES + 1) == [Unavailable] * FAILURES + [RateLimited]
        assert (len(site.paths), len(broken.paths)) == (FAILURES + 1, FAILURES)
        site.says = GOOD
        await web.fetch(site.url)


async def test_a_host_that_takes_too_long_has_failed() -> None:
    async def stalls(request: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with open_web_client(allow_private=False, transport=httpx2.MockTransport(stalls)) as web:
        for _ in range(FAILURES):
            with pytest.raises(Unavailable, match="took too long"):
                await web.fetch("https://example.com/", timeout=0)
        assert await fail(web, "https://example.com/", 1) == [RateLimited]


async def test_robots_txt_is_not_asked_for_either(site: Site, web: WebClient) -> None:
    site.says = answer("500 Oh")
    await fail(web, site.url)
    with pytest.raises(RateLimited):
        await web.check_robots(site.url)
    assert "/robots.txt" not in site.paths


def test_the_host_that_was_asked_longest_ago_is_forgotten() -> None:
    hosts = Hosts()
    for host in ("first", "second"):
        for _ in range(FAILURES):
            with pytest.raises(Unavailable), hosts.asking(host):
                raise Unavailable("it is down")
    for number in range(REMEMBERED - 1):
        with hosts.asking(f"{number}.example"):
            pass
    with pytest.raises(RateLimited), hosts.asking("second"):
        pass
    with hosts.asking("first"):
        pass
