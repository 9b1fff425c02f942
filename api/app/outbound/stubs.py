"""The other side of each wire, played: one small HTTP server, under the real clients, for who has no keys.

`python -m app.outbound.stubs PORT` runs it alone, for tests of several processes; `GET /calls` says what was asked of
whom. A stub's answers follow from the request alone. Any text of a request may ask for trouble: `[stub:429]`,
`[stub:500]`, `[stub:slow]`, `[stub:malformed]`; `[stub:500 x2]` for the first two times only; `[stub:deepl:500]` of
that vendor only.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import threading
from collections import Counter
from typing import Any
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SLOW_SECONDS = 60.0
RETRY_AFTER_SECONDS = 7

TROUBLE = re.compile(r"\[stub:(?:(?P<vendor>\w+):)?(?P<kind>429|500|slow|malformed)(?: x(?P<times>\d))?\]")


class Stubs:
    """The server of one process, started when the first client asks where it is."""

    def __init__(self, apps: dict[str, ASGIApp], *, served_at: str | None = None) -> None:
        """`served_at`: where another process serves them already."""
        self._apps = apps
        self._served_at = served_at
        self._server: _Server | None = None

    def url(self, vendor: str) -> str:
        """Where the stub of `vendor` answers."""
        if self._served_at is not None:
            return f"{self._served_at}/{vendor}"
        if self._server is None:
            self._server = _Server(played(self._apps))
        return f"http://127.0.0.1:{self._server.port}/{vendor}"

    async def aclose(self) -> None:
        """Stop the server, if it was started."""
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)


class _Server:
    """uvicorn in a thread of its own: a run that computes does not keep the stubs from answering it."""

    def __init__(self, app: ASGIApp) -> None:
        # It listens before it is served: who connects meanwhile waits.
        self._socket = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=1)
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._uvicorn.run, args=([self._socket],), name="stubs", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._socket.getsockname()[1]

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join()


def played(apps: dict[str, ASGIApp]) -> ASGIApp:
    """All stubs in one app, each under its vendor's name, with the trouble that was asked for."""
    calls: list[dict[str, Any]] = []

    async def tell(_: Request) -> Response:
        return JSONResponse(calls)

    mounts = [Mount(f"/{vendor}", _Troubled(vendor, app, calls)) for vendor, app in apps.items()]
    return Starlette(routes=[Route("/calls", tell), *mounts])


class _Troubled:
    """Notes each call, and makes the trouble that its text asks for."""

    def __init__(self, vendor: str, app: ASGIApp, calls: list[dict[str, Any]]) -> None:
        self._vendor = vendor
        self._app = app
        self._calls = calls
        self._made = Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        text = unquote(f"{path}?{request.url.query}\n{body.decode(errors='replace')}")
        trouble = self._trouble(text)
        self._calls.append({"vendor": self._vendor, "path": path, "trouble": trouble})
        if trouble == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        elif trouble is not None:
            await _TROUBLES[trouble](scope, receive, send)
            return

        async def again() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)

    def _trouble(self, text: str) -> str | None:
        asked = next((each for each in TROUBLE.finditer(text) if each["vendor"] in (None, self._vendor)), None)
        if asked is None:
            return None
        self._made[text] += 1
        return asked["kind"] if asked["times"] is None or self._made[text] <= int(asked["times"]) else None


_TROUBLES: dict[str, Response] = {
    "429": JSONResponse({"error": "too many"}, 429, {"Retry-After": str(RETRY_AFTER_SECONDS)}),
    "500": JSONResponse({"error": "broken"}, 500),
    "malformed": Response('{"cut', 200, media_type="application/json"),
}


if __name__ == "__main__":
    from app.outbound.clients import STUBS

    uvicorn.run(
        played(STUBS),
        host="127.0.0.1", port=int(sys.argv[1]), log_level="error", lifespan="off", timeout_graceful_shutdown=1,
    )  # fmt: skip
