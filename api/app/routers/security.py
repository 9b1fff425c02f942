"""Who may call. On loopback everybody, elsewhere whoever has the secret; a secret that is sent is always checked."""

from __future__ import annotations

import functools
import hmac
from ipaddress import ip_address

from fastapi.security import APIKeyHeader
from starlette.requests import HTTPConnection
from typing_extensions import override

from app.config import Settings
from app.errors import Unauthorized

HEADER = "X-ROADMAP-AI-SECRET"


class SharedSecret(APIKeyHeader):
    """Lets a request through, or not. One callable for all of it: each dependency costs every request."""

    @override
    async def __call__(self, request: HTTPConnection) -> None:
        """Look who calls.

        Raises:
            Unauthorized: the secret is missing or wrong.
        """
        settings: Settings = request.app.state.services.settings
        # Not what the header's own scheme would say, which is None for one that is empty.
        sent = request.headers.get(HEADER)
        if sent is not None:
            if not _is_right(sent, settings.secret):
                raise Unauthorized(detail="The secret in X-ROADMAP-AI-SECRET is not right.")
        elif not settings.allow_anonymous and not _is_our_own(request, settings):
            raise Unauthorized(detail="Send the shared secret in X-ROADMAP-AI-SECRET.")


authenticate = SharedSecret(
    name=HEADER,
    scheme_name="Shared secret",
    description="The value of ROADMAP_AI_SECRET. Not needed on loopback while none is configured.",
)


def _is_our_own(request: HTTPConnection, settings: Settings) -> bool:
    """Whether the request comes from this machine, and not from a web page that a browser here has opened."""
    from_here = settings.says_where_published or _is_loopback(request.client.host if request.client else None)
    return settings.open_on_loopback and from_here and _is_local_name(request.url.hostname)


@functools.lru_cache
def _is_loopback(address: str | None) -> bool:
    # Without an address it came through a Unix socket.
    return address is None or (_is_address(address) and ip_address(address).is_loopback)


def _is_local_name(host: str | None) -> bool:
    """Not a name of the public DNS, which may be made to lead here (DNS rebinding)."""
    return host is not None and ("." not in host or host.endswith(".localhost") or _is_address(host))


@functools.lru_cache
def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_right(sent: str, expected: str | None) -> bool:
    # Bytes, as they came over the wire: comparing text that is not ASCII would raise.
    return expected is not None and hmac.compare_digest(sent.encode("latin-1"), expected.encode())
