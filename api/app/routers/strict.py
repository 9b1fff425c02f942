"""Bodies that are JSON in UTF-8 and nothing else: no NaN, no UTF-16, no half surrogates, and not too large."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.responses import Response
from typing_extensions import override

from app.errors import BodyTooLarge

LARGEST_BODY_BYTES = 2 * 1024 * 1024


class StrictRoute(APIRoute):
    """A route that reads its body strictly."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            strict = _StrictRequest(request.scope, request.receive)
            await strict.read()
            return await handle(strict)

        return handle_strictly


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
