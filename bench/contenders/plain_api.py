"""What a FastAPI application would do by hand: the same body, the same answer, and less behind it.

usage: plain_api.py URL PORT nothing|insert|defer
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import asyncpg
import procrastinate
import uvicorn
from fastapi import FastAPI
from sqlalchemy import make_url

from app.runs.schemas import Links, RunCreate, RunRead
from app.runs.state import RunState

Store = Callable[[RunCreate], Awaitable[Any]]
CONNECTIONS = 10


@contextlib.asynccontextmanager
async def without_database(_: dict[str, str]) -> AsyncGenerator[Store]:
    async def store(request: RunCreate) -> int:  # noqa: ARG001
        return 1

    yield store


@contextlib.asynccontextmanager
async def bare_insert(to: dict[str, str]) -> AsyncGenerator[Store]:
    async with asyncpg.create_pool(**to, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        await pool.execute("CREATE TABLE runs (id bigserial PRIMARY KEY, action text, params jsonb, queue text)")

        async def store(request: RunCreate) -> int:
            return await pool.fetchval(
                "INSERT INTO runs (action, params, queue) VALUES ($1, $2, $3) RETURNING id",
                request.action, json.dumps(request.params), request.queue,
            )  # fmt: skip

        yield store


@contextlib.asynccontextmanager
async def bare_defer(to: dict[str, str]) -> AsyncGenerator[Store]:
    conninfo = " ".join(f"{'dbname' if name == 'database' else name}={value}" for name, value in to.items())
    connector = procrastinate.PsycopgConnector(conninfo=conninfo, min_size=CONNECTIONS, max_size=CONNECTIONS)
    app = procrastinate.App(connector=connector)

    @app.task(name="echo")
    async def echo(message: str) -> None: ...

    async with app.open_async():
        await app.schema_manager.apply_schema_async()

        async def store(request: RunCreate) -> int:
            return await echo.defer_async(**request.params)

        yield store


def create_app(opened: Callable[[dict[str, str]], contextlib.AbstractAsyncContextManager[Store]], url: str) -> FastAPI:
    given = make_url(url)
    to = {"host": str(given.query["host"]), "user": str(given.username), "database": str(given.database)}

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with opened(to) as app.state.store:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/runs", status_code=202)
    async def submit(body: RunCreate) -> RunRead:
        number = await app.state.store(body)
        now = datetime.datetime.now(datetime.UTC)
        return RunRead(
            id=f"run_{number}", action=body.action, state=RunState.QUEUED, params=body.params, result=None, error=None,
            progress=None, attempt=0, max_attempts=5, queue=body.queue or "default", priority=body.priority or 0,
            lock=body.lock, tags=body.tags, webhook=None, schedule_at=body.schedule_at,
            start_deadline=body.start_deadline, created_at=now, started_at=None, finished_at=None, worker=None,
            parent_id=None, replay_of=None,
            trace_id=None, last_seq=0,
            links=Links(**dict.fromkeys(Links.model_fields, f"/runs/{number}")),
        )  # fmt: skip

    return app


def main(url: str, port: str, kind: str) -> None:
    opened = {"nothing": without_database, "insert": bare_insert, "defer": bare_defer}[kind]
    uvicorn.run(
        create_app(opened, url),
        port=int(port), loop="uvloop", http="httptools", log_config=None, access_log=False, server_header=False,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
