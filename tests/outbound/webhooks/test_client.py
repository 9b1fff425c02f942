"""The client that sends webhooks: signed, bounded, and kept out of our own network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest
from tests.support.receiver import receiver

from app.errors import Rejected, Unavailable
from app.outbound.webhooks.client import Answer, open_webhook_client, signed_headers

SECRET, OLD = "whsec_" + "c2VjcmV0" * 8, "whsec_" + "b2xkb2xk" * 8
BODY = '{"type": "run.succeeded", "text": "héllo 漢"}'

Write = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def send(url: str, *, production: bool = False, timeout: float = 20) -> Answer:
    async with open_webhook_client(production=production, timeout=timeout) as client:
        return await client.post(url, BODY, event_id="evt_1", secrets=[SECRET, OLD])


@contextlib.asynccontextmanager
async def server(write: Write) -> AsyncIterator[str]:
    """A server that reads a request's head and then does as it likes, until the client goes away."""
    gone: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            await write(writer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone.add(asyncio.create_task(serve(reader, writer)))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    listening.close()
    async with asyncio.timeout(10):
        await asyncio.gather(*gone)


async def test_an_event_is_signed_with_each_secret_as_of_now() -> None:
    async with receiver(204) as there:
        assert await send(there.url) == Answer(204, None)
        [got] = there.got
    assert got.body == BODY.encode()
    for secret in (SECRET, OLD):
        assert got.verified(secret)["text"] == "héllo 漢"
    assert abs(int(got.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 60


def test_the_signature_is_that_of_the_specification_s_example() -> None:
    headers = signed_headers(
        '{"test": 2432232314}',
        event_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        secrets=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        now=datetime.fromtimestamp(1614265330, UTC),
    )
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("url", ["https://localhost/", "https://127.0.0.1/", "https://169.254.169.254/"])
async def test_in_production_our_own_network_is_not_reached_by_name_or_address(url: str) -> None:
    with pytest.raises(Rejected, match="may not receive events"):
        await send(url, production=True)


async def test_in_production_nothing_is_sent_in_clear_text() -> None:
    with pytest.raises(Rejected, match="Give an https URL"):
        await send("http://example.com/", production=True)


async def test_a_redirect_is_an_answer() -> None:
    async with receiver(200) as elsewhere, receiver(307, Location=elsewhere.url) as there:
        assert (await send(there.url)).status_code == 307
        assert elsewhere.got == []


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver(200) as proxy, receiver(200) as there:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        await send(there.url)
        assert (len(there.got), len(proxy.got)) == (1, 0)


async def test_an_answer_without_end_is_not_read() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    async with server(endless) as url:
        assert (await send(url)).status_code == 200


async def test_an_answer_that_comes_byte_by_byte_is_given_up_when_the_time_is_over() -> None:
    async def dripping(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with server(dripping) as url:
        with pytest.raises(Unavailable, match="too long"):
            await send(url, timeout=0.5)


async def test_what_is_no_http_is_unavailable() -> None:
    async def nonsense(writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        await writer.drain()

    async with server(nonsense) as url:
        with pytest.raises(Unavailable, match="broke off"):
            await send(url)


async def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await send("http://127.0.0.1:9/")


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("999999999", 900.0), ("soon", None), ("-1", None)])
async def test_the_patience_that_is_asked_for_is_told(header: str, seconds: float | None) -> None:
    async with receiver(429, Retry_After=header) as there:
        assert await send(there.url) == Answer(429, seconds)
