"""What an action may call: one client a neighbour, opened when a worker starts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from app.config import Settings
from app.outbound.web.client import WebClient, open_web_client


@dataclass(frozen=True)
class Clients:
    """The outbound clients of one worker, shared by its runs."""

    web: WebClient


@contextlib.asynccontextmanager
async def open_clients(settings: Settings) -> AsyncGenerator[Clients]:
    """Open every client, and close them when the worker ends."""
    async with open_web_client(allow_private=settings.environment != "production") as web:
        yield Clients(web=web)
