"""Every fault test goes through `trial` or `cluster_trial`, which judge it when it ends."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL
from tests.faults.cluster import Cluster
from tests.faults.proxy import Proxy
from tests.faults.trial import Trial, on_trial

from app.config import Settings


def fault_settings(url: URL) -> Settings:
    """Times that make faults short."""
    return Settings(
        _env_file=None,  # pyright: ignore[reportCallIssue]
        environment="test",
        database_url=url.render_as_string(hide_password=False),
        lease_seconds=2,
        heartbeat_seconds=0.5,
        sweep_seconds=0.5,
        poll_seconds=0.5,
        grace_seconds=2,
        db_timeout_seconds=2,
    )


@pytest.fixture
async def trial(database: URL, tmp_path: Path) -> AsyncIterator[Trial]:
    """For faults of processes: the server is shared with other tests."""
    async with on_trial(fault_settings(database), tmp_path) as trial:
        yield trial
        await trial.verdict()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A PostgreSQL of this test process's own, to be hurt."""
    cluster = Cluster.create()
    yield cluster
    cluster.remove()


@pytest.fixture
async def cluster_database(cluster: Cluster) -> AsyncIterator[URL]:
    name = f"t_{uuid.uuid4().hex}"
    await cluster.execute(f'CREATE DATABASE "{name}" TEMPLATE "{cluster.template}"')
    yield cluster.url.set(database=name)
    await cluster.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def proxy(cluster: Cluster, cluster_database: URL) -> AsyncIterator[Proxy]:
    """A wire between workers and the server."""
    async with Proxy.before(cluster_database) as proxy:
        yield proxy


@pytest.fixture
async def cluster_trial(cluster_database: URL, proxy: Proxy, tmp_path: Path) -> AsyncIterator[Trial]:
    """For faults of the server, and of the wire: the proxy is there until the workers have gone."""
    async with on_trial(fault_settings(cluster_database), tmp_path) as trial:
        yield trial
        await trial.verdict()
