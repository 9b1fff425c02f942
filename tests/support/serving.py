"""The API's protocol over any app, in the test's own process: where a test must see both sides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import uvicorn

from app.routers.transport import StrictHttpProtocol


@contextlib.asynccontextmanager
async def serving(app: Any, *, complete_seconds: float = 10) -> AsyncGenerator[int]:
    """The port on which the app is served, with a deadline of this many seconds for each request."""
    protocol = type("Impatient", (StrictHttpProtocol,), {"complete_seconds": complete_seconds})
    config = uvicorn.Config(app, port=0, http=protocol, ws="none", log_config=None, lifespan="off", loop="none")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task
