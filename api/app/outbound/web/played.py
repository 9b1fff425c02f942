"""A host that a stub plays: what would go to it goes to where the stub answers, and seems to come from the host."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
from typing_extensions import override

from app.outbound.web.guard import trusted


class PlayedHost(httpx2.AsyncHTTPTransport):
    """The way to the stub of one host."""

    def __init__(self, stub: Callable[[], str]) -> None:
        """`stub` is asked for the stub's URL at the first request: it may start it."""
        super().__init__(verify=trusted(), trust_env=False)
        self._stub = stub

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = self._stub() + request.url.raw_path.decode("ascii")
        # Another request, not this one changed: the page still says that it is of the host.
        sent = httpx2.Request(
            request.method, url, headers=request.headers, stream=request.stream, extensions=request.extensions
        )
        return await super().handle_async_request(sent)
