"""Fetch what a URL from outside points to: in bounded time and size, and never an address of our own network.

::

    fetch → checked URL → GuardedNetwork: one lookup, every address checked, one of them connected to
          → up to five redirects, each checked in the same way; a host that has failed lately is not asked
          → status → content type → body, measured while it streams
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2
from ssrfguard import BlockedAddressError, Policy

from app.errors import RateLimited, Rejected, Unavailable
from app.observability import tracing
from app.outbound.pace import Pace
from app.outbound.patience import retry_after
from app.outbound.web.guard import GuardedNetwork, GuardedTransport, checked_url, web_policy
from app.outbound.web.hosts import Hosts
from app.outbound.web.page import Page, Validators, conditions, content_type, read_page
from app.outbound.web.played import PlayedHost
from app.outbound.web.robots import Robots

USER_AGENT = "Runledger/0.1"
HTML = ("text/html", "application/xhtml+xml")
MAX_SECONDS = 20.0
CONNECT_SECONDS = 5.0
"""For one address; a name may have several."""
MAX_BYTES = 5 * 1024 * 1024
MAX_ROBOTS_BYTES = 512 * 1024
MAX_REDIRECTS = 5
NOT_MODIFIED = 304
LATER = frozenset({408, 425, 429})
"""The statuses below 500 that say: the same request may succeed later."""


class WebClient:
    """Fetches pages. Made by `open_web_client`, shared by the runs of a worker."""

    def __init__(self, http: httpx2.AsyncClient, policy: Policy, now: Callable[[], float]) -> None:
        self._http = http
        self._policy = policy
        self._now = now
        self._robots = Robots(self._read_robots, now)
        self._pace = Pace("web")
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
            return await self._expect_page(response, accept, max_bytes)

    async def fetch_if_changed(
        self,
        url: str,
        known: Validators | None,
        *,
        accept: tuple[str, ...] = HTML,
        max_bytes: int = MAX_BYTES,
        timeout: float = MAX_SECONDS,
    ) -> Page | None:
        """What `fetch` does; `None` if the server says that it is still the page that `known` came with.

        Raises:
            Unavailable, RateLimited, Rejected: as `fetch` does.
        """
        async with self._get(url, accept, timeout, known) as response:
            if response.status_code == NOT_MODIFIED and conditions(known, response.url):
                return None
            return await self._expect_page(response, accept, max_bytes)

    async def check_robots(self, url: str) -> None:
        """Return if the site's robots.txt allows us to fetch `url`.

        Raises:
            Rejected: it does not, or `url` may not be fetched anyway.
            Unavailable: robots.txt cannot be read now.
        """
        await self._robots.check(str(checked_url(url, self._policy)))

    async def crawl_pace(self, url: str, per_second: float) -> float:
        """How many pages of the site of `url` a crawl may ask for in a second: `per_second`, or less by its robots.txt.

        Raises:
            Rejected: `url` may not be fetched anyway.
            Unavailable: robots.txt cannot be read now.
        """
        delay = await self._robots.delay(str(checked_url(url, self._policy)))
        return 1 / max(delay, 1 / per_second)

    async def wait_turn(self, url: str, per_second: float) -> None:
        """Wait until the host of `url` may be asked again, by whichever run: so often a second, with what comes after.

        Raises:
            Rejected: `url` may not be fetched anyway.
        """
        await self._pace.turn(checked_url(url, self._policy).host, 1 / per_second)

    async def _read_robots(self, url: str) -> str:
        async with self._get(url, ("*/*",), MAX_SECONDS) as response:
            # RFC 9309 §2.3.1.3: a site without a robots.txt has no rules.
            if response.is_client_error and response.status_code not in LATER:
                return ""
            _expect_success(response, self._now())
            return (await read_page(response, MAX_ROBOTS_BYTES)).text

    async def _expect_page(self, response: httpx2.Response, accept: tuple[str, ...], max_bytes: int) -> Page:
        _expect_success(response, self._now())
        _expect_type(response, accept)
        return await read_page(response, max_bytes)

    @contextlib.asynccontextmanager
    async def _get(
        self, url: str, accept: tuple[str, ...], timeout: float, known: Validators | None = None
    ) -> AsyncGenerator[httpx2.Response]:
        """The headers of the last answer in a chain of redirects; its body can still be streamed."""
        target, deadline = checked_url(url, self._policy), asyncio.get_running_loop().time() + timeout
        for _ in range(1 + MAX_REDIRECTS):
            headers = {"Accept": ", ".join(accept), **conditions(known, target)}
            async with self._ask(target, headers, deadline) as response:
                if not response.has_redirect_location:
                    yield response
                    return
            target = checked_url(response.headers["Location"], self._policy, base=target)
        raise Rejected(f"{target.host} redirects more than {MAX_REDIRECTS} times. Give the final URL.")

    @contextlib.asynccontextmanager
    async def _ask(
        self, target: httpx2.URL, headers: dict[str, str], deadline: float
    ) -> AsyncGenerator[httpx2.Response]:
        with (
            self._hosts.asking(target.netloc.decode("ascii")),
            _faults_as_errors(target.host),
            tracing.requesting("GET", target.host) as trace,
        ):
            async with asyncio.timeout_at(deadline):
                async with self._http.stream("GET", target, headers=headers | trace) as response:
                    yield response


@contextlib.asynccontextmanager
async def open_web_client(
    *,
    allow_private: bool,
    played: Mapping[str, Callable[[], str]] | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
    now: Callable[[], float] = time.time,
) -> AsyncGenerator[WebClient]:
    """Open a client of the public web; `allow_private` adds loopback and private addresses, and any port.

    `played` says of hosts that stubs play where those answer. `transport` stands in for the network. `now` is seconds
    since 1970: it dates `Retry-After` and robots.txt.
    """
    policy = web_policy(allow_private=allow_private)
    async with httpx2.AsyncClient(
        transport=transport or GuardedTransport(GuardedNetwork(policy)),
        mounts={f"all://{host}": PlayedHost(stub) for host, stub in (played or {}).items()},
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip, deflate"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        trust_env=False,
    ) as http:
        yield WebClient(http, policy, now)


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
    sent = content_type(response)
    if sent not in accept:
        wanted = " or ".join(accept)
        raise Rejected(
            f"{response.url.host} answered with {sent or 'no content type'}, not {wanted}. Give another URL."
        )
