"""Send events as Standard Webhooks 1.0: signed, in bounded time, and never to an address of our own network.

::

    post → checked URL → signed headers → GuardedNetwork → the status; the answer's body is not read
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2
from ssrfguard import BlockedAddressError, Policy, SSRFGuardError
from standardwebhooks import Webhook

from app.errors import Rejected, Unavailable
from app.outbound.patience import retry_after
from app.outbound.web.guard import MAX_URL_LENGTH, GuardedNetwork, GuardedTransport, web_policy

USER_AGENT = "Runledger-Webhooks/1.0"
CONNECT_SECONDS = 5.0
"""For one address; a name may have several."""


@dataclass(frozen=True)
class Answer:
    """What the receiver said to an event."""

    status_code: int
    retry_after: float | None
    """Seconds, at most 900."""


class WebhookClient:
    """Sends events. Made by `open_webhook_client`, shared by the runs of a worker."""

    def __init__(self, http: httpx2.AsyncClient, policy: Policy, timeout: float) -> None:
        self._http = http
        self._policy = policy
        self._timeout = timeout

    async def post(self, url: str, body: str, *, event_id: str, secrets: Sequence[str]) -> Answer:
        """Send an event once, signed with each of the secrets, as of now. A redirect is an answer like any other.

        Raises:
            Unavailable: there was no answer in time.
            Rejected: a URL or an address that may not be reached.
        """
        target = checked_url(url, self._policy)
        headers = signed_headers(body, event_id=event_id, secrets=secrets, now=datetime.now(UTC))
        with _faults_as_errors(target.host):
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream("POST", target, content=body.encode(), headers=headers) as response,
            ):
                patience = retry_after(response.headers.get("Retry-After", ""), time.time())
                return Answer(response.status_code, patience)


def webhook_policy(*, production: bool) -> Policy:
    """Which URLs may receive events. In production https to public addresses; elsewhere also our own network."""
    policy = web_policy(allow_private=not production)
    return replace(policy, allowed_schemes=frozenset({"https"})) if production else policy


def checked_url(url: str, policy: Policy) -> httpx2.URL:
    """The URL as it will be sent, which is also the one that is checked. Its name is looked up when it is sent to.

    Raises:
        Rejected: it may not receive events.
    """
    try:
        target = httpx2.URL(url)
        policy.check_url(str(target))
    # Not chained: the reasons quote the URL, with the password that may be in it.
    except (httpx2.InvalidURL, SSRFGuardError, ValueError):
        raise Rejected(
            f"This URL may not receive events. Give an {' or '.join(sorted(policy.allowed_schemes))} URL of a public "
            f"site, without user name and password, of at most {MAX_URL_LENGTH} characters."
        ) from None
    return target


def signed_headers(body: str, *, event_id: str, secrets: Sequence[str], now: datetime) -> dict[str, str]:
    """The headers of an event: `now` must be in UTC, since the library takes any time for that."""
    signatures = [Webhook(secret).sign(event_id, now, body) for secret in secrets]
    return {
        "Content-Type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


@contextlib.asynccontextmanager
async def open_webhook_client(*, production: bool, timeout: float) -> AsyncGenerator[WebhookClient]:
    """Open a client; `timeout` is in seconds, for everything about one event together."""
    policy = webhook_policy(production=production)
    async with httpx2.AsyncClient(
        transport=GuardedTransport(GuardedNetwork(policy)),
        headers={"User-Agent": USER_AGENT},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        follow_redirects=False,
        trust_env=False,
    ) as http:
        yield WebhookClient(http, policy, timeout)


@contextlib.contextmanager
def _faults_as_errors(host: str) -> Generator[None]:
    try:
        yield
    except (TimeoutError, httpx2.TimeoutException) as late:
        raise Unavailable(f"{host} took too long to answer.") from late
    except (httpx2.HTTPError, OSError) as fault:  # ssl.SSLError comes through as it is
        raise Unavailable(f"{host} cannot be reached or broke off ({type(fault).__name__}).") from fault
    except BlockedAddressError as blocked:
        raise Rejected(f"{host} leads to an address that may not receive events.") from blocked
