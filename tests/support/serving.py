"""The API in the test's own process: where a test must see both sides."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator
from typing import Any

import uvicorn
from fastapi import FastAPI
from tests.support.workshop import Workshop

from app.config import Settings
from app.main import create_app
from app.routers.services import open_services
from app.routers.transport import StrictHttpProtocol


@functools.cache
def _routes() -> FastAPI:
    # Once for all tests: they take a fifth of a second to make, and know nothing of settings.
    return create_app(Settings(_env_file=None, environment="test"))


@contextlib.asynccontextmanager
async def open_api(workshop: Workshop, settings: Settings | None = None) -> AsyncGenerator[FastAPI]:
    """The API over the workshop, one at a time."""
    app = _routes()
    async with open_services(settings or workshop.settings, workshop.queue, workshop.action) as services:
        app.state.services = services
        yield app


@contextlib.asynccontextmanager
async def serving(app: Any, *, port: int = 0, complete_seconds: float = 10) -> AsyncGenerator[int]:
    """The port on which the app is served, with a deadline of this many seconds for each request."""
    protocol = type("Impatient", (StrictHttpProtocol,), {"complete_seconds": complete_seconds})
    config = uvicorn.Config(app, port=port, http=protocol, ws="none", log_config=None, lifespan="off", loop="none")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task
