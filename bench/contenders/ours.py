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
from app.outbound.postgres.database import make_engine
from app.runs.problems import describe

SETTINGS = Settings(_env_file=None, environment="test")


def engine_of(url: str) -> AsyncEngine:
    """The engine of a process of ours, over this database."""
    return make_engine(SETTINGS.model_copy(update={"database_url": url}))


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
    async with open_clients(SETTINGS) as clients:
        yield {"clients": clients}
