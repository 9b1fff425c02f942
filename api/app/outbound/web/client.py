"""Fetch what a URL from outside points to: in bounded time and size, and never an address of our own network.

::

    fetch → checked URL → GuardedNetwork: one lookup, every address checked, one of them connected to
          → up to five redirects, each checked in the same way; a host that has failed lately is not asked
          → status → content type → body, measured while it streams
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2
from ssrfguard import (
    BlockedAddressError,
    Policy,
    SSRFGuardError,
)

from app.errors import RateLimited, Rejected, Unavailable
from app.observability import tracing
from app.outbound.pace import Pace
from app.outbound.patience import retry_after
from app.outbound.web.guard import MAX_URL_LENGTH, GuardedNetwork, GuardedTransport, web_policy
from app.outbound.web.hosts import Hosts
from app.outbound.web.robots import Robots

USER_AGENT = "Runledger/0.1"
HTML = ("text/html", "application/xhtml+xml")
MAX_SECONDS = 20.0
CONNECT_SECONDS = 5.0
"""For one address; a name may have several."""
MAX_BYTES = 5 * 1024 * 1024
MAX_ROBOTS_BYTES = 512 * 1024
MAX_REDIRECTS = 5
LATER = frozenset({408, 425, 429})
"""The statuses below 500 that say: the same request may succeed later."""

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
        self._pace = Pace()
        self._hosts = Hosts()

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
            RateLimited: 429 or 503 with a `Retry-After`, cut to 15 minutes; or the host has failed so often that it
                is left alone for a while.
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

    async def wait_turn(self, url: str, per_second: float) -> None:
        """Wait until the site of `url` may be asked again: `per_second` times, or less often if its robots.txt says so.

        Raises:
            Rejected: `url` may not be fetched anyway.
            Unavailable: robots.txt cannot be read now.
        """
        target = self._checked(url)
        delay = await self._robots.delay(str(target))
        await self._pace.turn(target.host, max(delay, 1 / per_second))

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
        target, deadline = self._checked(url), asyncio.get_running_loop().time() + timeout
        for _ in range(1 + MAX_REDIRECTS):
            async with self._ask(target, accept, deadline) as response:
                if not response.has_redirect_location:
                    yield response
                    return
            target = self._checked(response.headers["Location"], base=target)
        raise Rejected(f"{target.host} redirects more than {MAX_REDIRECTS} times. Give the final URL.")

    @contextlib.asynccontextmanager
    async def _ask(
        self, target: httpx2.URL, accept: tuple[str, ...], deadline: float
    ) -> AsyncGenerator[httpx2.Response]:
        with (
            self._hosts.asking(target.netloc.decode("ascii")),
            _faults_as_errors(target.host),
            tracing.requesting("GET", target.host) as trace,
        ):
            async with asyncio.timeout_at(deadline):
                headers = {"Accept": ", ".join(accept), **trace}
                async with self._http.stream("GET", target, headers=headers) as response:
                    yield response

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
    wait = retry_after(response.headers.get("Retry-After", ""), now)
    if status in (429, 503) and wait is not None:
        raise RateLimited(f"{answer} Try again in {wait:.0f} s.", retry_after=wait)
    if status in LATER or status >= 500:
        raise Unavailable(f"{answer} Try again later.")
    raise Rejected(f"{answer} Check the URL: asking again will not help.")


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
