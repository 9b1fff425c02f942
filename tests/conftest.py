"""Every test has a database of its own: a clone of a template that Alembic made, on a real PostgreSQL.

`TEST_DATABASE_URL=postgresql+asyncpg://user@host/postgres` runs the suite against another server; `NOTIFY=off` runs it
on databases that announce nothing, without the tests that are about announcements.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import asyncpg
import httpx2
import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support import forks
from tests.support.serving import open_api
from tests.support.silence import SILENCE
from tests.support.workshop import Workshop, open_workshop

from app.config import ROOT, Settings
from app.embedded import EmbeddedPostgres
from app.outbound.postgres.database import make_engine

TEMPLATE = "runledger_template"
TESTRUN = "RUNLEDGER_TESTRUN"
# The tests lose no power: what is promised is that a process may die, not the machine.
FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "shared_buffers": "64MB",
}


def scratch() -> str | None:
    """Where files are memory, if there is room; `None`: where temporary files are.

    A database is a thousand files, and each test makes one: on a disk that is a third of the time of all tests.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * 1024**3
    return str(memory) if roomy else None


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        closing = contextlib.ExitStack()
        config.add_cleanup(closing.close)
        # Not pytest's own folder: root's is closed to the user that root runs PostgreSQL as.
        folder = Path(tempfile.mkdtemp(prefix="runledger-tests-", dir=scratch()))
        closing.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        os.environ[TESTRUN] = str(folder)
        if forks.are_possible():
            closing.enter_context(forks.served(folder / "forks"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The tests themselves are no garbage: not to be looked through while they are found, nor again and again after."""
    gc.disable()
    result = yield
    gc.collect()
    gc.freeze()
    gc.enable()
    return result


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_silent():
        about_bells = [item for item in items if item.get_closest_marker("bell")]
        config.hook.pytest_deselected(items=about_bells)
        items[:] = [item for item in items if item not in about_bells]


def is_silent() -> bool:
    return os.environ.get("NOTIFY") == "off"


@pytest.fixture(scope="session")
def server(testrun: Path) -> Iterator[URL]:
    """A PostgreSQL server, shared by the workers of a test run."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield make_url(given)
        return
    embedded = EmbeddedPostgres(testrun / "postgres", FAST)
    embedded.ensure_running()
    yield embedded.url
    embedded.release()


@pytest.fixture(scope="session")
def testrun() -> Path:
    """A folder shared by the workers of a test run."""
    return Path(os.environ[TESTRUN])


@pytest.fixture(scope="session")
def template(server: URL, testrun: Path) -> URL:
    """The database that all others are clones of, made by Alembic once per test run."""
    with (testrun / "template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = testrun / "template.made"
        if not made.exists():
            _psql(
                server.set(database="postgres"),
                f'DROP DATABASE IF EXISTS "{TEMPLATE}" WITH (FORCE)',
                f'CREATE DATABASE "{TEMPLATE}"',
            )
            alembic("upgrade", "heads", url=server.set(database=TEMPLATE))
            if is_silent():
                _psql(server.set(database=TEMPLATE), *SILENCE)
            made.touch()
    return server.set(database=TEMPLATE)


@pytest.fixture
async def database(template: URL) -> AsyncIterator[URL]:
    """A migrated, empty database."""
    async with _created(template, template=TEMPLATE) as url:
        yield url


@pytest.fixture
async def empty_database(server: URL) -> AsyncIterator[URL]:
    """A database without a schema."""
    async with _created(server, template="template0") as url:
        yield url


@pytest.fixture
def settings(database: URL) -> Settings:
    """Settings for tests: short times, no `.env`."""
    return Settings(
        _env_file=None,
        environment="test",
        database_url=database.render_as_string(hide_password=False),
        poll_seconds=0.2,
        heartbeat_seconds=0.5,
        lease_seconds=2,
        sweep_seconds=0.5,
        grace_seconds=2,
        db_timeout_seconds=5,
    )


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(settings)
    yield engine
    await engine.dispose()


@pytest.fixture
async def pgvector(engine: AsyncEngine) -> None:
    """Leaves a test out where the database has no place for vectors."""
    async with engine.connect() as connection:
        if await connection.scalar(text("SELECT to_regclass('texts')")) is None:
            pytest.skip("this PostgreSQL has no pgvector")


@pytest.fixture
async def workshop(engine: AsyncEngine, settings: Settings) -> AsyncIterator[Workshop]:
    """An app of our own kind, with actions to break, over a real database."""
    async with open_workshop(engine, settings) as workshop:
        yield workshop


@pytest.fixture
async def api(workshop: Workshop) -> AsyncIterator[httpx2.AsyncClient]:
    """The API over the workshop, without a socket."""
    async with open_api(workshop) as app:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            yield client


def alembic(*arguments: str, url: URL) -> subprocess.CompletedProcess[str]:
    """Run the `alembic` command as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url.render_as_string(hide_password=False)},
        capture_output=True,
        text=True,
        check=True,
    )


@contextlib.asynccontextmanager
async def _created(server: URL, *, template: str) -> AsyncIterator[URL]:
    name = f"t_{uuid.uuid4().hex}"
    admin = server.set(database="postgres")
    await _execute(admin, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield server.set(database=name)
    finally:
        await _execute(admin, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _execute(url: URL, statement: str) -> None:
    connection = await asyncpg.connect(**_arguments(url))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _arguments(url: URL) -> dict[str, object]:
    host = url.query.get("host", url.host)
    return {"host": host, "port": url.port, "user": url.username, "password": url.password, "database": url.database}


def _psql(database: URL, *statements: str) -> None:
    for statement in statements:
        asyncio.run(_execute(database, statement))
