"""Faults of the server as those who submit see them: a clear answer, and business as usual when it is over."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import asyncpg
import httpx2
import pytest
from sqlalchemy import URL
from tests.faults.cluster import Cluster
from tests.faults.conftest import fault_settings
from tests.support.eventually import eventually
from tests.support.serving import open_api
from tests.support.workshop import open_workshop

from app.outbound.postgres.database import make_engine

SUBMISSION = {"action": "echo", "params": {"message": "x"}}


@pytest.fixture
async def client(cluster_database: URL) -> AsyncIterator[httpx2.AsyncClient]:
    settings = fault_settings(cluster_database)
    engine = make_engine(settings)
    async with open_workshop(engine, settings) as workshop:

        @workshop.action()
        async def echo(message: str) -> str:
            return message

        async with open_api(workshop, settings) as app:
            transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                yield client
    await engine.dispose()


async def announce(session: asyncpg.Connection, pages: int) -> None:
    """Fill so many pages of the queue; a page holds one such notification."""
    await session.execute(
        f"SELECT pg_notify('x', {pages} || '.' || n || repeat('x', 7900)) FROM generate_series(1, {pages}) AS n"
    )


async def announce_until_full(session: asyncpg.Connection) -> None:
    with contextlib.suppress(asyncpg.ProgramLimitExceededError):
        while True:
            await announce(session, 1)


async def test_a_full_notify_queue_is_foretold_answered_503_and_over_when_its_session_ends(
    client: httpx2.AsyncClient, cluster: Cluster
) -> None:
    async with cluster.superuser() as busy:
        async with cluster.superuser() as pinning:
            await pinning.execute("LISTEN x")
            await pinning.execute("BEGIN")
            await pinning.execute("SELECT 1")
            await announce(busy, 40)
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "ready")
            assert ready.json()["notify_queue_usage"] > 0.5
            [warning] = ready.json()["warnings"]
            assert "LISTENs inside a long transaction (docs/how-to/deploy.md" in warning
            assert (await client.post("/runs", json=SUBMISSION)).status_code == 202

            await announce_until_full(busy)
            for request in (("GET", "/readyz"), ("POST", "/runs")):
                answer = await client.request(*request, json=SUBMISSION)
                assert (answer.status_code, answer.json()["type"]) == (503, "/problems/database-unavailable"), request
                assert answer.headers["retry-after"] == "1"
                assert "NOTIFY queue is full" in answer.json()["detail"]
            assert len((await client.get("/runs")).json()["items"]) == 1, "nothing was stored"

        async def over() -> bool:
            return (await client.get("/readyz")).status_code == 200

        await eventually(over)
        assert (await client.get("/readyz")).json()["warnings"] == []
        assert (await client.post("/runs", json=SUBMISSION)).status_code == 202


async def test_a_database_that_became_read_only_refuses_submissions_and_answers_questions(
    client: httpx2.AsyncClient, cluster: Cluster, cluster_database: URL
) -> None:
    assert (await client.post("/runs", json=SUBMISSION)).status_code == 202
    database = cluster_database.database
    await cluster.execute(
        f'ALTER DATABASE "{database}" SET default_transaction_read_only = on',
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'",
    )

    async def refused() -> bool:
        return (await client.post("/runs", json=SUBMISSION)).status_code == 503

    await eventually(refused)
    assert len((await client.get("/runs")).json()["items"]) == 1
    await cluster.execute(f'ALTER DATABASE "{database}" RESET default_transaction_read_only')

    async def accepted() -> bool:
        return (await client.post("/runs", json=SUBMISSION)).status_code == 202

    await eventually(accepted)
