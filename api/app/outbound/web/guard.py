"""The network as a URL from outside may see it: every address checked, and the checked address connected to."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_network
from typing import cast

import anyio.to_thread
import httpcore2
import httpx2
from pydantic import AfterValidator, HttpUrl
from ssrfguard import (
    DEFAULT_DENIED,
    Address,
    AddressTable,
    Block,
    Policy,
    Reach,
    Resolver,
    SSRFGuardError,
    Target,
    resolve,
)

from app.errors import Rejected

MAX_URL_LENGTH = 2048

PRIVATE = frozenset(
    ip_network(block)
    for block in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)
# A public address in no registry, behind which every Azure machine finds its host.
AZURE_HOST = Block(ip_network("168.63.129.16/32"), "Azure's wire server", "no RFC", Reach.DENIED)


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


def checked_url(url: str, policy: Policy, base: httpx2.URL | None = None) -> httpx2.URL:
    """The URL as it will be sent, which is also the one that is checked; `base` has redirected to it.

    Raises:
        Rejected: it may not be fetched. Where its name leads is seen when it is.
    """
    try:
        target = base.join(url) if base else httpx2.URL(url)
        policy.check_url(str(target))
    # Not chained: the reasons quote the URL, with the password that may be in it.
    except (httpx2.InvalidURL, SSRFGuardError, ValueError):
        where = f"{base.host} redirects to a URL that" if base else "This URL"
        raise Rejected(
            f"{where} may not be fetched. Give an http or https URL of a public site, on port 80 or 443, "
            f"without user name and password, of at most {MAX_URL_LENGTH} characters."
        ) from None
    return target


def fetchable(policy: Policy) -> AfterValidator:
    """What makes a URL that may not be fetched invalid input."""

    def check(url: HttpUrl) -> HttpUrl:
        try:
            checked_url(str(url), policy)
        except Rejected as refusal:
            raise ValueError(str(refusal)) from None
        return url

    return AfterValidator(check)


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


@functools.cache
def trusted() -> ssl.SSLContext:
    """What this system trusts, for every client of a process: reading it takes longer than opening the client."""
    return httpx2.create_ssl_context(trust_env=False)


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """httpx2's transport over a network of our choice, for which it has no parameter."""

    def __init__(self, network: httpcore2.AsyncNetworkBackend) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=trusted(),
            max_connections=100,
            keepalive_expiry=5.0,
            network_backend=network,
        )
