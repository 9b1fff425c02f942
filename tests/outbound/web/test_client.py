"""The web client against a wire that misbehaves: real sockets on loopback, and the errors that come of it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import threading
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import TypeAlias

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ssrfguard import Policy, Resolver

from app.errors import ActionError, RateLimited, Rejected, Unavailable
from app.outbound.web.client import (
    MAX_BYTES,
    USER_AGENT,
    Page,
    WebClient,
    open_web_client,
)
from app.outbound.web.guard import GuardedNetwork, GuardedTransport, web_policy

NOW = 1_766_000_000.0
SOON = 0.3
"""Seconds: the deadline of fetches that are expected to run into it."""

OUR_OWN = "127.0.0.1"
STAND_IN = "127.0.0.2"
"""An address of this machine that plays a public one: the policies below allow it, and it alone."""
NOBODY = "127.0.0.3"

ANY_PORT = frozenset(range(1, 65536))
OUTSIDE = replace(web_policy(allow_private=False), allowed_ports=ANY_PORT)
OUTSIDE_AND_STAND_IN = Policy(
    denied_networks=OUTSIDE.denied_networks,
    allowed_networks=(f"{STAND_IN}/32",),  # pyright: ignore[reportArgumentType] - it parses them
    allowed_ports=ANY_PORT,
)


Script: TypeAlias = Callable[["Wire", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Wire:
    """A server that does what it is told, and remembers what it was sent."""

    script: Script
    url: str = ""
    port: int = 0
    connections: int = 0
    heads: list[str] = field(default_factory=list[str])
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            await self.script(self, writer)
        with contextlib.suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(script: Script, host: str = OUR_OWN, port: int = 0) -> AsyncGenerator[Wire]:
    wire, serves = Wire(script), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serves.add(task)
        await wire.serve(reader, writer)

    server = await asyncio.start_server(serve, host, port)
    wire.port = server.sockets[0].getsockname()[1]
    wire.url = f"http://{host}:{wire.port}/"
    try:
        yield wire
    finally:
        wire.over.set()
        server.close()
        await server.wait_closed()
        await asyncio.gather(*serves)


def answer(
    body: bytes = b"<title>Hello</title>", status: str = "200 OK", content_type: str = "text/html", **headers: str
) -> bytes:
    fields = {"Content-Type": content_type, "Content-Length": str(len(body)), "Connection": "close"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def says(sent: bytes) -> Script:
    async def script(wire: Wire, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()

    return script


async def says_nothing(wire: Wire, writer: asyncio.StreamWriter) -> None:
    await wire.over.wait()


async def drips(wire: Wire, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(b"", Content_Length="1000000"))
    while not wire.over.is_set():
        writer.write(b".")
        await writer.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wire.over.wait(), SOON / 20)


async def never_ends(wire: Wire, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(b"", Content_Length=""))
    while not wire.over.is_set():
        writer.write(b"x" * 65536)
        await writer.drain()


async def goes_on_after_the_end_of_the_gzip(wire: Wire, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(gzip.compress(b"<p>"), Content_Encoding="gzip", Content_Length=""))
    while not wire.over.is_set():
        writer.write(b"\0" * 65536)
        await writer.drain()


def redirects(location: str, status: str = "302 Found") -> Script:
    return says(answer(b"", status, Location=location))


async def redirects_to_itself(wire: Wire, writer: asyncio.StreamWriter) -> None:
    await redirects(wire.url)(wire, writer)


def resolving(*answers: list[str]) -> Resolver:
    """A name server that gives each of these answers once, and the last one from then on."""
    left = list(answers)

    def resolver(host: str, port: int, *_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port))
            for address in addresses
        ]

    return resolver


def client(
    policy: Policy = OUTSIDE_AND_STAND_IN, resolver: Resolver | None = None
) -> contextlib.AbstractAsyncContextManager[WebClient]:
    """A client whose network follows `policy`, whatever the URL."""
    return open_web_client(allow_private=True, transport=GuardedTransport(GuardedNetwork(policy, resolver)))


async def fetch(script: Script, timeout: float = 10, max_bytes: int = MAX_BYTES) -> Page:
    """Fetch from a server with that script, as in development."""
    async with serving(script) as wire, open_web_client(allow_private=True, now=lambda: NOW) as web:
        return await web.fetch(wire.url, timeout=timeout, max_bytes=max_bytes)


async def error_of(attempt: Awaitable[object]) -> ActionError:
    with pytest.raises(ActionError) as raised:
        await attempt
    return raised.value


# What a page is


async def test_a_page_has_where_it_was_in_the_end_its_type_and_its_text() -> None:
    page = await fetch(says(answer("<p>grün".encode(), content_type="Text/HTML; charset=UTF-8")))
    assert (page.status, page.content_type, page.encoding, page.text) == (200, "text/html", "utf-8", "<p>grün")


async def test_redirects_are_followed_to_the_fifth() -> None:
    async def five_hops(wire: Wire, writer: asyncio.StreamWriter) -> None:
        hop = len(wire.heads)
        await (redirects(f"/hop{hop}?q=ü", "307 Temporary Redirect") if hop <= 5 else says(answer()))(wire, writer)

    page = await fetch(five_hops)
    assert page.url.endswith("/hop5?q=%C3%BC")


async def test_a_compressed_page_is_decompressed() -> None:
    page = await fetch(says(answer(gzip.compress(b"<p>small"), Content_Encoding="gzip")))
    assert page.body == b"<p>small"


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/html; charset=windows-1251", "Привет".encode("cp1251"), "Привет"),
        ("text/html", b'<meta charset="shift_jis">' + "日本".encode("shift_jis"), '<meta charset="shift_jis">日本'),
        ("text/html", b"\xff<p>", "\ufffd<p>"),
        ("text/html; charset=no-such", "é".encode(), "é"),
        ("text/html; charset=punycode", b"<p>abc-de", "<p>abc-de"),
        ("text/html; charset=base64", b"<p>", "<p>"),
    ],
)
async def test_the_text_is_read_in_the_encoding_that_the_page_declares(
    content_type: str, body: bytes, text: str
) -> None:
    assert (await fetch(says(answer(body, content_type=content_type)))).text == text


async def test_a_request_says_who_asks_and_carries_nothing_of_ours() -> None:
    async with serving(says(answer(Set_Cookie="id=1"))) as wire, open_web_client(allow_private=True) as web:
        await web.fetch(wire.url)
        await web.fetch(wire.url)
    assert f"User-Agent: {USER_AGENT}\r\n" in wire.heads[1]
    assert "cookie" not in wire.heads[1].lower()
    assert "authorization" not in wire.heads[1].lower()


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(says(answer())) as canary, serving(says(answer())) as wire:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, canary.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with open_web_client(allow_private=True) as web:
            await web.fetch(wire.url)
    assert (wire.connections, canary.connections) == (1, 0)


# What the wire does, and the error that it becomes


WIRE: dict[str, tuple[Script, type[ActionError]]] = {
    "never answers": (says_nothing, Unavailable),
    "one byte at a time": (drips, Unavailable),
    "hangs up": (says(b""), Unavailable),
    "is not HTTP": (says(b"SSH-2.0-OpenSSH_9.9\r\n"), Unavailable),
    "half an answer": (says(answer(b"<p>", Content_Length="100")), Unavailable),
    "half a chunk": (says(answer(b"9\r\n<p>", Content_Length="", Transfer_Encoding="chunked")), Unavailable),
    "broken gzip": (says(answer(b"\x1f\x8b\x08 no gzip", Content_Encoding="gzip")), Unavailable),
    "408": (says(answer(status="408 Request Timeout")), Unavailable),
    "425": (says(answer(status="425 Too Early")), Unavailable),
    "429": (says(answer(status="429 Too Many Requests")), Unavailable),
    "500": (says(answer(status="500 Oh")), Unavailable),
    "503": (says(answer(status="503 Busy")), Unavailable),
    "503, later": (says(answer(status="503 Busy", Retry_After="later")), Unavailable),
    "304": (says(answer(b"", "304 Not Modified")), Rejected),
    "302 to nowhere": (says(answer(status="302 Found")), Rejected),
    "401": (says(answer(status="401 Unauthorized")), Rejected),
    "404": (says(answer(status="404 Not Found")), Rejected),
    "404 with Retry-After": (says(answer(status="404 Not Found", Retry_After="1")), Rejected),
    "image": (says(answer(content_type="image/png")), Rejected),
    "no type": (says(answer(content_type="")), Rejected),
    "never ends": (never_ends, Rejected),
    "gzip bomb": (says(answer(gzip.compress(bytes(MAX_BYTES * 20)), Content_Encoding="gzip")), Rejected),
    "gzip that goes on": (goes_on_after_the_end_of_the_gzip, Rejected),
    "gzip of gzip": (says(answer(gzip.compress(gzip.compress(b"x")), Content_Encoding="gzip, gzip")), Rejected),
    "brotli": (says(answer(b"\x0b\x02\x80hello\x03", Content_Encoding="br")), Rejected),
    "redirect loop": (redirects_to_itself, Rejected),
    "redirect to a file": (redirects("file:///etc/passwd"), Rejected),
    "redirect with a password": (redirects("http://user:s3cret@example.com/"), Rejected),
    "redirect to metadata": (redirects("http://169.254.169.254/latest/meta-data/"), Rejected),
    "redirect to no URL": (redirects("http://[::1/"), Rejected),
}


@pytest.mark.parametrize(("script", "error"), WIRE.values(), ids=WIRE.keys())
async def test_what_goes_wrong_on_the_wire_says_whether_to_try_again(script: Script, error: type[ActionError]) -> None:
    slow = script in (says_nothing, drips)
    raised = await error_of(fetch(script, timeout=SOON if slow else 10))
    assert type(raised) is error
    assert "s3cret" not in str(raised)


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        ("503 Busy", "7", 7),
        ("429 Slow down", "0", 0),
        ("429 Slow down", "99999", 900),
        ("429 Slow down", formatdate(NOW + 30, usegmt=True), 30),
        ("503 Busy", formatdate(NOW - 30, usegmt=True), 0),
        ("503 Busy", formatdate(NOW + 86_400, usegmt=True), 900),
    ],
)
async def test_a_site_that_says_when_is_asked_then(status: str, header: str, seconds: float) -> None:
    raised = await error_of(fetch(says(answer(status=status, Retry_After=header))))
    assert isinstance(raised, RateLimited)
    assert raised.retry_after == seconds


async def test_a_body_of_just_the_limit_is_read() -> None:
    assert len((await fetch(says(answer(b"x" * 1000)), max_bytes=1000)).body) == 1000
    assert isinstance(await error_of(fetch(says(answer(b"x" * 1001)), max_bytes=1000)), Rejected)


async def test_a_port_where_nobody_listens_is_unavailable() -> None:
    async with serving(says(b"")) as wire:
        pass
    async with open_web_client(allow_private=True) as web:
        assert type(await error_of(web.fetch(wire.url))) is Unavailable


async def test_https_where_something_else_is_spoken_is_unavailable() -> None:
    async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        writer.close()

    server = await asyncio.start_server(greets, OUR_OWN, 0)
    async with server, open_web_client(allow_private=True) as web:
        port = server.sockets[0].getsockname()[1]
        assert type(await error_of(web.fetch(f"https://{OUR_OWN}:{port}/"))) is Unavailable


async def test_tls_that_breaks_in_the_middle_is_unavailable() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        raise ssl.SSLError("bad record mac")

    async with open_web_client(allow_private=False, transport=httpx2.MockTransport(handler)) as web:
        assert type(await error_of(web.fetch("https://example.com/"))) is Unavailable


async def test_a_handshake_that_is_given_up_leaves_no_connection_behind() -> None:
    hung_up = asyncio.Event()

    async def shakes_no_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()
        hung_up.set()

    server = await asyncio.start_server(shakes_no_hands, OUR_OWN, 0)
    async with server, open_web_client(allow_private=True) as web:
        port = server.sockets[0].getsockname()[1]
        assert type(await error_of(web.fetch(f"https://{OUR_OWN}:{port}/", timeout=SOON))) is Unavailable
        await asyncio.wait_for(hung_up.wait(), 10)


async def test_a_name_that_does_not_resolve_is_unavailable() -> None:
    def resolver(*_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with client(resolver=resolver) as web:
        assert type(await error_of(web.fetch("http://nowhere.example/"))) is Unavailable


async def test_a_name_server_that_stalls_costs_no_more_than_the_deadline() -> None:
    free = threading.Event()

    def resolver(*_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        free.wait()
        return []

    async with client(resolver=resolver) as web:
        assert type(await error_of(web.fetch("http://slow.example/", timeout=SOON))) is Unavailable
    free.set()


async def test_an_error_names_the_host_and_keeps_the_password() -> None:
    async with open_web_client(allow_private=False) as web:
        for url in ("http://user:s3cret@example.com/", "http://user:s3cret@①℀.com/", "http://u:s3cret@[::1/"):
            raised = await error_of(web.fetch(url))
            assert "s3cret" not in "".join(traceback.format_exception(raised))


@settings(deadline=None)
@given(location=st.text())
async def test_no_location_header_can_surprise_us(location: str) -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        sent = location.encode("utf-8", "surrogatepass")
        return httpx2.Response(302, headers=[(b"Location", sent)])

    async with open_web_client(allow_private=False, transport=httpx2.MockTransport(handler)) as web:
        await error_of(web.fetch("http://example.com/"))


@settings(deadline=None)
@given(header=st.text(st.characters(codec="latin-1")) | st.integers().map(str))
async def test_no_retry_after_header_can_surprise_us(header: str) -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(429, headers=[(b"Retry-After", header.encode("latin-1"))])

    async with open_web_client(allow_private=False, transport=httpx2.MockTransport(handler)) as web:
        raised = await error_of(web.fetch("http://example.com/"))
    assert isinstance(raised, Unavailable)
    assert not isinstance(raised, RateLimited) or 0 <= raised.retry_after <= 900


# What may be fetched


PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.254",
    "192.168.1.1",
    "::1",
    "fc00::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
]
NEVER = [
    "0.0.0.0",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::ffff:169.254.169.254",
    "::ffff:168.63.129.16",
    "64:ff9b:1::7f00:1",
    "100::1",
    "2001:db8::1",
    "2001::7f00:1",
    "3fff::1",
    "5f00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "168.63.129.17",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


async def test_an_address_that_is_not_public_is_rejected_in_a_url() -> None:
    async with open_web_client(allow_private=False) as web:
        for address in PRIVATE + NEVER:
            host = f"[{address}]" if ":" in address else address
            assert type(await error_of(web.fetch(f"http://{host}/", timeout=SOON))) is Rejected, address


async def test_an_address_that_is_not_public_is_rejected_behind_a_name() -> None:
    async with client(OUTSIDE, resolving(*([address] for address in PRIVATE + NEVER))) as web:
        for address in PRIVATE + NEVER:
            assert type(await error_of(web.fetch("http://name.example/", timeout=SOON))) is Rejected, address


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert web_policy(allow_private=False).permits_address(address)


@pytest.mark.parametrize("address", PRIVATE + NEVER)
def test_development_opens_private_addresses_and_nothing_else(address: str) -> None:
    assert web_policy(allow_private=True).permits_address(address) == (address in PRIVATE)


OURSELVES = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "localhost",
    "[::1]",
    "[::]",
    "0.0.0.0",
    "①②⑦.⓪.⓪.①",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::1%25eth0]",
]


async def test_no_packet_leaves_for_this_machine_however_it_is_spelled() -> None:
    async with serving(says(answer())) as canary, client(OUTSIDE) as web, open_web_client(allow_private=False) as real:
        for host in OURSELVES:
            url = f"http://{host}:{canary.port}/"
            assert type(await error_of(web.fetch(url, timeout=SOON))) is Rejected, host
            assert type(await error_of(real.fetch(url, timeout=SOON))) is Rejected, host
            assert type(await error_of(real.fetch(f"http://{host}/", timeout=SOON))) is Rejected, host
    assert canary.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://x.example/",
        "ftp://x.example/",
        "javascript:1",
        "//x.example/",
        "x.example",
        "",
        "http://",
        "http:///path",
        "http://user:pw@example.com/",
        "http://user@example.com/",
        "http://exa%0d%0ample.com/",
        "http://exa\tmple.com/",
        "http://example.com/\r\nHost: evil",
        "http://example.com/\x00",
        "http://example.com/\ud800",
        " http://example.com/",
        "http://a\\@example.com/",
        "http://x.example:22/",
        "http://x.example:5432/",
        "http://x.example:6379/",
        "http://x.example:0/",
        "http://x.example:99999/",
        "http://x.example/" + "a" * 2048,
        "http://" + "a" * 64 + ".example/",
    ],
)
async def test_a_url_that_is_not_one_of_the_public_web_is_rejected_unasked(url: str) -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        raise AssertionError("nothing may be sent")

    async with open_web_client(allow_private=False, transport=httpx2.MockTransport(handler)) as web:
        assert type(await error_of(web.fetch(url))) is Rejected


async def test_a_redirect_to_a_private_address_is_rejected() -> None:
    async with (
        serving(says(answer())) as canary,
        serving(redirects(canary.url), STAND_IN) as wire,
        client() as web,
    ):
        assert type(await error_of(web.fetch(wire.url))) is Rejected
    assert (wire.connections, canary.connections) == (1, 0)


async def test_a_redirect_to_a_name_of_a_private_address_is_rejected() -> None:
    async with (
        serving(says(answer())) as canary,
        serving(redirects(f"http://inside.example:{canary.port}/"), STAND_IN) as wire,
        client(resolver=resolving([STAND_IN], [OUR_OWN])) as web,
    ):
        assert type(await error_of(web.fetch(f"http://outside.example:{wire.port}/"))) is Rejected
    assert (wire.connections, canary.connections) == (1, 0)


async def test_a_name_that_flips_to_a_private_address_is_not_followed() -> None:
    async with (
        serving(says(answer()), STAND_IN) as wire,
        serving(says(answer()), OUR_OWN, wire.port) as canary,
        client(resolver=resolving([STAND_IN], [OUR_OWN])) as web,
    ):
        url = f"http://flips.example:{wire.port}/"
        assert (await web.fetch(url)).status == 200
        assert type(await error_of(web.fetch(url))) is Rejected
    assert (wire.connections, canary.connections) == (1, 0)


async def test_a_name_with_one_private_address_among_its_own_is_rejected_whole() -> None:
    async with (
        serving(says(answer()), STAND_IN) as wire,
        serving(says(answer()), OUR_OWN, wire.port) as canary,
        client(resolver=resolving([STAND_IN, OUR_OWN])) as web,
    ):
        assert type(await error_of(web.fetch(f"http://both.example:{wire.port}/"))) is Rejected
    assert (wire.connections, canary.connections) == (0, 0)


async def test_an_address_that_does_not_answer_gives_way_to_the_next() -> None:
    policy = replace(OUTSIDE_AND_STAND_IN, allowed_networks=("127.0.0.2/31",))  # pyright: ignore[reportArgumentType]
    async with (
        serving(says(answer()), STAND_IN) as wire,
        client(policy, resolving([NOBODY, STAND_IN])) as web,
    ):
        assert (await web.fetch(f"http://dual.example:{wire.port}/")).status == 200


async def test_the_site_is_told_its_own_name_not_its_address() -> None:
    async with serving(says(answer()), STAND_IN) as wire, client(resolver=resolving([STAND_IN])) as web:
        await web.fetch(f"http://shop.example:{wire.port}/")
    assert f"Host: shop.example:{wire.port}\r\n" in wire.heads[0]


async def test_tls_asks_for_the_certificate_of_the_name() -> None:
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), STAND_IN, 0, ssl=context)
    async with server, client(resolver=resolving([STAND_IN])) as web:
        port = server.sockets[0].getsockname()[1]
        assert type(await error_of(web.fetch(f"https://shop.example:{port}/"))) is Unavailable
    assert asked == ["shop.example"]
