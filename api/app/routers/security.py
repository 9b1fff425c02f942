"""Who may call. On loopback everybody, elsewhere whoever has a credential; one that is sent is always checked."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

import http_sf
from fastapi import Depends, FastAPI, Request
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from starlette.responses import Response

from app.access.buckets import Standing
from app.access.gate import CREDENTIALS, SECRET_HEADER
from app.access.principal import LOCAL, Principal, Scope
from app.config import Settings
from app.errors import Forbidden, TooManyRequests, Unauthorized
from app.routers.dependencies import ServicesDep
from app.routers.services import Services
from app.routers.sites import SAFE_METHODS, is_of_another_site

PRINCIPAL = "runledger.principal"
_STANDING = "runledger.standing"
_IN_HEADER = "SharedSecret"
_BEARER = "Bearer"


class Access(SecurityBase):
    """What a route asks of its caller. One callable for all of it: each dependency costs every request.

    ::

        async def list_runs(principal: Reads): …
    """

    def __init__(self, scope: Scope, *, or_of_an_action: bool = False, who_reads: bool = False) -> None:
        self.scope = scope
        self.or_of_an_action = or_of_an_action
        self.who_reads = who_reads
        self.scheme_name = _IN_HEADER
        self.model = APIKey.model_validate(
            {
                "in": APIKeyIn.header,
                "name": SECRET_HEADER,
                "description": "The shared secret (ROADMAP_AI_SECRET), or an API key. "
                "Not needed on loopback while no credential is configured.",
            }
        )

    async def __call__(self, request: HTTPConnection) -> Principal:
        """Who calls: known already where the route has asked before it read the body.

        Raises:
            Unauthorized, TooManyRequests, Forbidden: as `admit`.
        """
        principal: Principal | None = request.scope.get(PRINCIPAL)
        return await self.admit(request) if principal is None else self._allowed(principal)

    async def admit(self, request: HTTPConnection) -> Principal:
        """Who calls, if that is somebody who may.

        Raises:
            Unauthorized: the credential is missing or wrong.
            TooManyRequests: it has been used too often lately, or too many wrong ones came from its address.
            Forbidden: it does not allow this.
        """
        principal = request.scope[PRINCIPAL] = await identify(request)
        standing = request.scope[_STANDING] = request.app.state.services.gate.spend(principal)
        if standing is not None and not standing.is_served:
            raise TooManyRequests(
                detail="You ask more often than RATE_LIMIT allows; POST /runs/batch takes up to 1,000 runs.",
                retry_after=standing.seconds,
            )
        return self._allowed(principal)

    def _allowed(self, principal: Principal) -> Principal:
        if not (principal.may(self.scope) or self._may_for_an_action(principal)):
            raise Forbidden(detail=f"This needs the scope {self.scope}{self._or_else}.")
        return principal

    def _may_for_an_action(self, principal: Principal) -> bool:
        may_look = principal.may(Scope.READ) or not self.who_reads
        return self.or_of_an_action and bool(principal.actions) and may_look

    @property
    def _or_else(self) -> str:
        return f", or {Scope.READ} and actions: with the name of the action" if self.who_reads else ""


Reads = Annotated[Principal, Depends(Access(Scope.READ))]
Writes = Annotated[Principal, Depends(Access(Scope.WRITE))]
Submits = Annotated[Principal, Depends(Access(Scope.WRITE, or_of_an_action=True))]
"""Who may submit runs, of some actions at least: of which is seen when it is known what is submitted."""
Repeats = Annotated[Principal, Depends(Access(Scope.WRITE, or_of_an_action=True, who_reads=True))]
"""The same for a run that is there, which he must be allowed to look at: its replay shows what is in it."""
Administers = Annotated[Principal, Depends(Access(Scope.ADMIN))]


def check_may_submit(principal: Principal, action: str) -> None:
    """Do nothing if runs of the action may be submitted.

    Raises:
        Forbidden: they may not, whether there is such an action or not.
    """
    if not principal.may_submit(action):
        raise Forbidden(detail=f"This needs the scope {Scope.WRITE}, or actions: with the name of the action.")


async def identify(request: HTTPConnection) -> Principal:
    """Who calls.

    Raises:
        TwoCredentials, Unauthorized, TooManyRequests, IssuerUnavailable: as `Gate.identify`.
        Forbidden: without a credential, a web page of another site asks for a change.
    """
    services: Services = request.app.state.services
    sent = [header for header in request.scope["headers"] if header[0] in CREDENTIALS]
    if sent:
        return await services.gate.identify(sent, request.client.host if request.client else None)
    if not services.settings.allow_anonymous and not _is_our_own(request, services.settings):
        raise Unauthorized(
            detail=f"Send the shared secret in {SECRET_HEADER}, or an API key or a JWT as Authorization: Bearer."
        )
    if request.scope["method"] not in SAFE_METHODS and is_of_another_site(request.headers):
        raise Forbidden(detail="A web page of another site may change nothing here without a credential.")
    return LOCAL


async def _one_stream(services: ServicesDep, principal: Reads) -> AsyncIterator[None]:
    with services.streams.one_more(principal):
        yield


ONE_STREAM = Depends(_one_stream)
"""Among the `dependencies` of a route that streams: its caller has one more stream open until it ends."""


def tell_standing(request: Request, response: Response) -> None:
    """Set `RateLimit` and `RateLimit-Policy`, unless the caller is not limited."""
    standing: Standing | None = request.scope.get(_STANDING)
    if standing is not None:
        rate = request.app.state.services.gate.rate
        response.headers["RateLimit-Policy"] = _policy(rate.amount, rate.seconds)
        response.headers["RateLimit"] = http_sf.ser([("default", {"r": standing.left, "t": standing.seconds})])


def document_credentials(app: FastAPI) -> None:
    """Say in OpenAPI that whatever takes the secret in its header takes a key or a token as Bearer, too."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        schemes = document["components"].setdefault("securitySchemes", {})
        if _BEARER not in schemes:
            schemes[_BEARER] = {"type": "http", "scheme": "bearer", "description": "An API key, or a JWT."}
            for operation in (each for path in document["paths"].values() for each in path.values()):
                if {_IN_HEADER: []} in operation.get("security", []):
                    operation["security"].append({_BEARER: []})
        return document

    app.openapi = openapi  # pyright: ignore[reportAttributeAccessIssue]


@functools.lru_cache
def _policy(amount: int, seconds: int) -> str:
    return http_sf.ser([("default", {"q": amount, "w": seconds})])


def _is_our_own(request: HTTPConnection, settings: Settings) -> bool:
    """Whether the request comes from this machine, and not from a web page that a browser here has opened."""
    from_here = settings.says_where_published or _is_loopback(request.client.host if request.client else None)
    return settings.open_on_loopback and from_here and _is_local_name(_asked_by_name(request))


def _asked_by_name(request: HTTPConnection) -> str | None:
    # The URL says it too, and takes as long to make as all the rest of this.
    host = request.headers.get("host")
    return request.url.hostname if host is None else _name_in(host)


@functools.lru_cache
def _name_in(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


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
