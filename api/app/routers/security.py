"""Who may call. On loopback everybody, elsewhere whoever has the secret; a secret that is sent is always checked."""

from __future__ import annotations

import functools
import hmac
from ipaddress import ip_address
from typing import Annotated

from fastapi import Depends
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from app.access.principal import LOCAL, SECRET, Principal, Scope
from app.config import Settings
from app.errors import Forbidden, Unauthorized

HEADER = "X-ROADMAP-AI-SECRET"


class Access(SecurityBase):
    """What a route asks of its caller. One callable for all of it: each dependency costs every request.

    ::

        async def list_runs(principal: Reads): …
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.scheme_name = "SharedSecret"
        self.model = APIKey.model_validate(
            {
                "in": APIKeyIn.header,
                "name": HEADER,
                "description": "The value of ROADMAP_AI_SECRET. Not needed on loopback while none is configured.",
            }
        )

    async def __call__(self, request: HTTPConnection) -> Principal:
        """Who calls, if that is somebody who may.

        Raises:
            Unauthorized: the credential is missing or wrong.
            Forbidden: it does not allow this.
        """
        principal = identify(request)
        if not principal.may(self.scope):
            raise Forbidden(detail=f"This needs the scope {self.scope}.")
        return principal


Reads = Annotated[Principal, Depends(Access(Scope.READ))]
Writes = Annotated[Principal, Depends(Access(Scope.WRITE))]
Administers = Annotated[Principal, Depends(Access(Scope.ADMIN))]


def identify(request: HTTPConnection) -> Principal:
    """Who calls.

    Raises:
        Unauthorized: the credential is missing or wrong.
    """
    settings: Settings = request.app.state.services.settings
    sent = request.headers.get(HEADER)
    if sent is not None:
        if not _is_right(sent, settings.secret):
            raise Unauthorized(detail="The secret in X-ROADMAP-AI-SECRET is not right.")
        return SECRET
    if not settings.allow_anonymous and not _is_our_own(request, settings):
        raise Unauthorized(detail="Send the shared secret in X-ROADMAP-AI-SECRET.")
    return LOCAL


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
