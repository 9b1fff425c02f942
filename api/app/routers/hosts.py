"""Under which names the API answers: a page elsewhere may have its own name lead here (DNS rebinding)."""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import MalformedRequest
from app.routers.problems import answer


class AllowedHosts:
    """Refuses requests for other hosts than those named; without names, none."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._names and scope["type"] == "http" and _host(scope) not in self._names:
            problem = MalformedRequest(
                detail="The API is not known by the name in Host. ALLOWED_HOSTS lists its names."
            )
            await answer(problem)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _host(scope: Scope) -> str:
    sent = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1").lower()
    # An IPv6 address has colons of its own, in brackets.
    return sent.partition("]")[0].lstrip("[") if sent.startswith("[") else sent.partition(":")[0]
