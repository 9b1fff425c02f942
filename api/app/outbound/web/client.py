"""Fetch what a URL from outside points to: in bounded time and size, and never an address of our own network.

::

    fetch → checked URL → GuardedNetwork: one lookup, every address checked, one of them connected to
          → up to five redirects, each checked in the same way
          → status → content type → body, measured while it streams
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import functools
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import ip_network
from typing import cast

import anyio.to_thread
import httpcore2
import httpx2
from ssrfguard import (
    DEFAULT_DENIED,
    Address,
    AddressTable,
    Block,
    BlockedAddressError,
    Policy,
    Reach,
    Resolver,
    SSRFGuardError,
    Target,
    resolve,
)

from app.errors import RateLimited, Rejected, Unavailable
from app.outbound.web.robots import Robots

USER_AGENT = "Runledger/0.1"
HTML = ("text/html", "application/xhtml+xml")
MAX_SECONDS = 20.0
CONNECT_SECONDS = 5.0
"""For one address; a name may have several."""
MAX_BYTES = 5 * 1024 * 1024
MAX_ROBOTS_BYTES = 512 * 1024
MAX_REDIRECTS = 5
MAX_URL_LENGTH = 2048
MAX_RETRY_AFTER = 900.0
LATER = frozenset({408, 425, 429})
"""The statuses below 500 that say: the same request may succeed later."""

PRIVATE = frozenset(
    ip_network(block)
    for block in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)
# A public address in no registry, behind which every Azure machine finds its host.
AZURE_HOST = Block(ip_network("168.63.129.16/32"), "Azure's wire server", "no RFC", Reach.DENIED)

CHARSET = re.compile(rb"""<meta[^>]+charset=["']?([\w-]+)""", re.IGNORECASE)
# Python's other codecs are not encodings of pages, and some ("punycode") take the square of the time.
PAGE_CODEC = re.compile(r"utf-(8|16)|ascii|iso8859|cp\d|koi8|gb|big5|euc|shift_jis|iso2022|mac")


@dataclass(frozen=True)
class Page:
    """What came back, with a status of 2xx."""

    url: str
    """Where it was in the end, after redirects."""
    status: int
    content_type: str
    """In lower case, without parameters."""
    encoding: str
    """A Python codec: what the header says, or the document's first kilobyte, or else UTF-8."""
    body: bytes
    """After decompression."""

    @property
    def text(self) -> str:
        """The body, with U+FFFD for what is not text in that encoding."""
        return self.body.decode(self.encoding, "replace")


class WebClient:
    """Fetches pages. Made by `open_web_client`, shared by the runs of a worker."""

    def __init__(self, http: httpx2.AsyncClient, policy: Policy, now: Callable[[], float]) -> None:
        self._http = http
        self._policy = policy
        self._now = now
        self._robots = Robots(self._read_robots, now)

    async def fetch(
        self,
        url: str,
        *,
        accept: tuple[str, ...] = HTML,
        max_bytes: int = MAX_BYTES,
        timeout: float = MAX_SECONDS,
    ) -> Page:
        """Fetch `url` if it answers with one of the content types in `accept`.

        `timeout` is in seconds, for everything together. `max_bytes` holds before and after decompression.

        Raises:
            Unavailable: the network, the time, or a status of 408, 425, 429 or 5xx.
            RateLimited: 429 or 503 with a `Retry-After`, cut to 15 minutes.
            Rejected: a URL or an address that may not be fetched, any other status, too many redirects,
                too many bytes, or another content type.
        """
        async with self._get(url, accept, timeout) as response:
            _expect_success(response, self._now())
            _expect_type(response, accept)
            return await _read_page(response, max_bytes)

    async def check_robots(self, url: str) -> None:
        """Return if the site's robots.txt allows us to fetch `url`.

        Raises:
            Rejected: it does not, or `url` may not be fetched anyway.
            Unavailable: robots.txt cannot be read now.
        """
        await self._robots.check(str(self._checked(url)))

    async def _read_robots(self, url: str) -> str:
        async with self._get(url, ("*/*",), MAX_SECONDS) as response:
            # RFC 9309 §2.3.1.3: a site without a robots.txt has no rules.
            if response.is_client_error and response.status_code not in LATER:
                return ""
            _expect_success(response, self._now())
            return (await _read_page(response, MAX_ROBOTS_BYTES)).text

    @contextlib.asynccontextmanager
    async def _get(self, url: str, accept: tuple[str, ...], timeout: float) -> AsyncGenerator[httpx2.Response]:
        """The headers of the last answer in a chain of redirects; its body can still be streamed."""
        target = self._checked(url)
        with _faults_as_errors(target.host):
            async with asyncio.timeout(timeout):
                for _ in range(1 + MAX_REDIRECTS):
                    headers = {"Accept": ", ".join(accept)}
                    async with self._http.stream("GET", target, headers=headers) as response:
                        if not response.has_redirect_location:
                            yield response
                            return
                    target = self._checked(response.headers["Location"], base=target)
        raise Rejected(f"{target.host} redirects more than {MAX_REDIRECTS} times. Give the final URL.")

    def _checked(self, url: str, base: httpx2.URL | None = None) -> httpx2.URL:
        """The URL as it will be sent, which is also the one that is checked."""
        try:
            target = base.join(url) if base else httpx2.URL(url)
            self._policy.check_url(str(target))
        # Not chained: the reasons quote the URL, with the password that may be in it.
        except (httpx2.InvalidURL, SSRFGuardError, ValueError):
            where = f"{base.host} redirects to a URL that" if base else "This URL"
            raise Rejected(
                f"{where} may not be fetched. Give an http or https URL of a public site, on port 80 or 443, "
                f"without user name and password, of at most {MAX_URL_LENGTH} characters."
            ) from None
        return target


@contextlib.asynccontextmanager
async def open_web_client(
    *,
    allow_private: bool,
    transport: httpx2.AsyncBaseTransport | None = None,
    now: Callable[[], float] = time.time,
) -> AsyncGenerator[WebClient]:
    """Open a client of the public web; `allow_private` adds loopback and private addresses, and any port.

    `transport` stands in for the network. `now` is seconds since 1970: it dates `Retry-After` and robots.txt.
    """
    policy = web_policy(allow_private=allow_private)
    async with httpx2.AsyncClient(
        transport=transport or GuardedTransport(GuardedNetwork(policy)),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip, deflate"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        trust_env=False,
    ) as http:
        yield WebClient(http, policy, now)


def web_policy(*, allow_private: bool) -> Policy:
    """What may be fetched: public addresses on the ports of the web; or also private ones, and any port."""
    blocks = (*DEFAULT_DENIED.blocks, AZURE_HOST)
    if allow_private:
        # Not `allowed_networks`: that would also open the metadata services inside these blocks.
        blocks = tuple(replace(b, reach=Reach.PERMITTED) if b.network in PRIVATE else b for b in blocks)
    return Policy(
        denied_networks=AddressTable(blocks),
        allowed_ports=frozenset(range(1, 65536) if allow_private else (80, 443)),
        max_url_length=MAX_URL_LENGTH,
    )


class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """Looks a name up once, checks every address it has, and connects to one of those, not to the name."""

    def __init__(self, policy: Policy, resolver: Resolver | None = None) -> None:
        self._policy = policy
        self._resolver = resolver
        # A cast, because httpcore2 also defines an empty class of that name, for machines without anyio.
        self._network = cast(httpcore2.AsyncNetworkBackend, httpcore2.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await self._addresses(host, port)
        failure: Exception | None = None
        for address in addresses[: self._policy.max_connection_attempts]:
            try:
                return _Connection(
                    await self._network.connect_tcp(str(address.ip), port, timeout, local_address, socket_options)
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as unreachable:
                failure = unreachable
        raise failure or httpcore2.ConnectError(f"{host} has no address")

    async def _addresses(self, host: str, port: int) -> tuple[Address, ...]:
        target = Target(scheme="tcp", host=host, port=port, host_as_written=host)
        lookup = functools.partial(resolve, target, policy=self._policy, resolver=self._resolver)
        try:
            # A lookup cannot be interrupted, only left behind; and not in asyncio's own threads, where a
            # name server that stalls would hold up the database's lookups too.
            return await anyio.to_thread.run_sync(lookup, abandon_on_cancel=True)
        except (OSError, ValueError) as unknown:
            raise httpcore2.ConnectError(str(unknown)) from unknown


class _Connection(httpcore2.AsyncNetworkStream):
    """A connection that does not outlive a TLS handshake that was given up: httpcore2 leaves it open then."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self.read = stream.read
        self.write = stream.write
        self.aclose = stream.aclose
        self.get_extra_info = stream.get_extra_info

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except asyncio.CancelledError:
            await self._stream.aclose()
            raise


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """httpx2's transport over a network of our choice, for which it has no parameter."""

    def __init__(self, network: httpcore2.AsyncNetworkBackend) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(trust_env=False),
            max_connections=100,
            keepalive_expiry=5.0,
            network_backend=network,
        )


class _CappedStream(httpx2.AsyncByteStream):
    """A body as it comes over the wire: what decompresses to nothing must not go on for ever either."""

    def __init__(self, response: httpx2.Response, max_bytes: int) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        self._stream = response.stream
        self._host = response.url.host
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for chunk in self._stream:
            received += len(chunk)
            _expect_size(received, self._max_bytes, self._host)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


@contextlib.contextmanager
def _faults_as_errors(host: str) -> Generator[None]:
    try:
        yield
    except (TimeoutError, httpx2.TimeoutException) as late:
        raise Unavailable(f"{host} took too long to answer. Try again later.") from late
    except (httpx2.HTTPError, OSError) as fault:  # ssl.SSLError comes through as it is
        reason = type(fault).__name__
        raise Unavailable(f"{host} cannot be reached or broke off ({reason}). Try again later.") from fault
    except BlockedAddressError as blocked:
        raise Rejected(
            f"{host} leads to an address that may not be fetched. Give the URL of a public site."
        ) from blocked


def _expect_success(response: httpx2.Response, now: float) -> None:
    if response.is_success:
        return
    status = response.status_code
    answer = f"{response.url.host} answered {status}."
    wait = _retry_after(response.headers.get("Retry-After", ""), now)
    if status in (429, 503) and wait is not None:
        raise RateLimited(f"{answer} Try again in {wait:.0f} s.", retry_after=wait)
    if status in LATER or status >= 500:
        raise Unavailable(f"{answer} Try again later.")
    raise Rejected(f"{answer} Check the URL: asking again will not help.")


def _retry_after(header: str, now: float) -> float | None:
    """The seconds that the header asks for, from 0 to 900; `None` if it says nothing that can be read."""
    try:
        seconds = int(header) if header.isdigit() else parsedate_to_datetime(header).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return float(min(max(seconds, 0), MAX_RETRY_AFTER))


def _expect_type(response: httpx2.Response, accept: tuple[str, ...]) -> None:
    sent = _content_type(response)
    if sent not in accept:
        wanted = " or ".join(accept)
        raise Rejected(
            f"{response.url.host} answered with {sent or 'no content type'}, not {wanted}. Give the URL of a page."
        )


def _content_type(response: httpx2.Response) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


async def _read_page(response: httpx2.Response, max_bytes: int) -> Page:
    body = await _read_body(response, max_bytes)
    return Page(
        url=str(response.url),
        status=response.status_code,
        content_type=_content_type(response),
        encoding=_encoding(response.charset_encoding, body),
        body=body,
    )


async def _read_body(response: httpx2.Response, max_bytes: int) -> bytes:
    host = response.url.host
    # What is compressed twice may grow a million times before the first byte can be counted.
    if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", "gzip", "deflate"):
        raise Rejected(f"{host} compressed its answer in a way that was not asked for. Give another URL.")
    response.stream = _CappedStream(response, max_bytes)
    body = bytearray()
    async with contextlib.aclosing(response.aiter_bytes()) as chunks:
        async for chunk in chunks:
            body += chunk
            _expect_size(len(body), max_bytes, host)
    return bytes(body)


def _expect_size(size: int, max_bytes: int, host: str) -> None:
    if size > max_bytes:
        raise Rejected(f"{host} answered with more than {max_bytes:,} bytes. Give the URL of a smaller page.")


def _encoding(header: str | None, body: bytes) -> str:
    declared = CHARSET.search(body[:1024])
    label = header or (declared[1].decode() if declared else "utf-8")
    try:
        codec = codecs.lookup(label).name
    except (LookupError, ValueError):
        return "utf-8"
    return codec if PAGE_CODEC.match(codec) else "utf-8"
