"""Our app as `tasks.py` makes it, without its actions."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from app.config import Settings
from app.engine.app import App
from app.engine.connector import SQLAlchemyAsyncConnector
from app.outbound.clients import open_clients
from app.runs.problems import describe


def make_app(engine: AsyncEngine) -> App:
    """An app over this engine, whose worker polls and beats as often as by default."""
    return App(
        connector=SQLAlchemyAsyncConnector(engine),
        describe=describe,
        resources=_resources,
        worker_options={},
        worker_defaults={
            "fetch_job_polling_interval": 1,
            "abort_job_polling_interval": 1,
            "update_heartbeat_interval": 5,
        },
    )


@contextlib.asynccontextmanager
async def _resources() -> AsyncGenerator[dict[str, Any]]:
    async with open_clients(Settings(_env_file=None, environment="test")) as clients:
        yield {"clients": clients}
