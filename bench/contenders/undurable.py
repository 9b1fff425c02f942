"""Our own API, which keeps nothing: what POST /runs costs before and after the database.

usage: undurable.py URL PORT
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import os
import sys
from collections.abc import AsyncGenerator

import uvicorn
from fastapi import FastAPI
from typing_extensions import override

from app.main import create_app
from app.runs.intake import Intake
from app.runs.queries import NewRun
from app.runs.schemas import Unique
from app.runs.stored import Stored

EMPTY = dict.fromkeys(
    ("result", "error", "progress", "started_at", "finished_at", "worker_id", "parent_id", "replay_of", "trace_context")
)


class Nowhere(Intake):
    """Answers as if it had stored."""

    _numbers = itertools.count()

    @override
    async def store(self, run: NewRun, unique: Unique | None = None) -> Stored:
        now = datetime.datetime.now(datetime.UTC)
        number = next(self._numbers)
        given = {
            "id": f"run_{number}",
            "job_id": number,
            "state": "queued",
            "attempt": 0,
            "last_seq": 0,
            "created_at": now,
            "read_at": now,
        }
        return Stored(EMPTY | run | given)


def main(url: str, port: str) -> None:
    os.environ["DATABASE_URL"] = url
    app = create_app()
    real = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with real(app):
            services = app.state.services
            app.state.services = dataclasses.replace(services, intake=Nowhere(services.engine, timeout=10))
            yield

    app.router.lifespan_context = lifespan
    uvicorn.run(
        app,
        port=int(port), loop="uvloop", http="httptools", log_config=None, access_log=False, server_header=False,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
