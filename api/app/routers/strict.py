"""Routes that know who calls before they read a byte, and bodies that are JSON in UTF-8 and nothing else: no NaN, no
UTF-16, no half surrogates, and not too large.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi_rfc9457.server import problems
from pydantic_core import from_json
from starlette.responses import Response
from typing_extensions import override

from app.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    Forbidden,
    IssuerUnavailable,
    TooManyRequests,
    TwoCredentials,
    Unauthorized,
)
from app.routers.audited import SAFE_METHODS, audited
from app.routers.security import Access, tell_standing

LARGEST_BODY_BYTES = 2 * 1024 * 1024
Responses = dict[int | str, dict[str, Any]]
_ANY_MAY_ANSWER: Responses = problems(
    TwoCredentials, Unauthorized, Forbidden, TooManyRequests, IssuerUnavailable, DatabaseUnavailable
)


class StrictRoute(APIRoute):
    """A route that asks who calls first, then reads its body strictly; a write is written down at its end."""

    def __init__(
        self, path: str, endpoint: Callable[..., Any], *, responses: Responses | None = None, **options: Any
    ) -> None:
        super().__init__(path, endpoint, responses=_merged(responses or {}, _ANY_MAY_ANSWER), **options)

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, access = super().get_route_handler(), access_of(self.dependant)

        async def handle_strictly(request: Request) -> Response:
            # First of all: a body is not read for whoever may not send it.
            if access is not None:
                await access.admit(request)
            strict = _StrictRequest(request.scope, request.receive)
            await strict.read()
            response = await handle(strict)
            tell_standing(request, response)
            return response

        return handle_strictly if (self.methods or set()) <= SAFE_METHODS else audited(handle_strictly, self.path)


def access_of(dependant: Dependant) -> Access | None:
    """What a route, or one of its dependencies, asks of its caller."""
    if isinstance(dependant.call, Access):
        return dependant.call
    return next(filter(None, map(access_of, dependant.dependencies)), None)


def _merged(own: Responses, others: Responses) -> Responses:
    """Both; of a status that both have, every problem of either."""
    return own | {status: _either(own[status], other) if status in own else other for status, other in others.items()}


def _either(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    said = f"{one['description']} / {other['description']}".split(" / ")
    headers = {**one.get("headers", {}), **other.get("headers", {})}
    return {
        "model": one["model"] | other["model"],
        "description": " / ".join(dict.fromkeys(said)),
        **({"headers": headers} if headers else {}),
    }


class _StrictRequest(Request):
    async def read(self) -> None:
        """Read the body, and stop as soon as it is too large."""
        body = bytearray()
        async for chunk in self.stream():
            body += chunk
            if len(body) > LARGEST_BODY_BYTES:
                raise BodyTooLarge(detail=f"The body is larger than {LARGEST_BODY_BYTES} bytes.")
        self._body = bytes(body)

    @override
    async def json(self) -> Any:
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            # What FastAPI understands as "this is not JSON"; the body is not repeated.
            raise json.JSONDecodeError(str(error), "", 0) from None
