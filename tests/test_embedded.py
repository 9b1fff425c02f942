"""The PostgreSQL that comes along: started by whoever comes first, stopped by whoever leaves last."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import ROOT
from app.embedded import EmbeddedPostgres, cluster_folder
from app.errors import ConfigurationError

USE = """
import asyncio, pathlib, sys
from app.embedded import EmbeddedPostgres
from app.outbound.postgres.database import make_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy import text

postgres = EmbeddedPostgres(pathlib.Path(sys.argv[1]))
postgres.ensure_running()

async def ask():
    engine = create_async_engine(postgres.url)
    async with engine.begin() as connection:
        result = await connection.execute(text(sys.argv[2]))
        answer = result.scalar() if result.returns_rows else "done"
    await engine.dispose()
    return answer

print(asyncio.run(ask()), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def data(testrun: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    # A space, because folders have names that people give them.
    folder = testrun / f"with a space {request.node.name[:20]}" / "postgres"
    folder.parent.mkdir(mode=0o755)
    yield folder
    EmbeddedPostgres(folder).release()


def test_it_serves_several_processes_and_stops_with_the_last_one(data: Path) -> None:
    first = user(data, "SELECT current_database()")
    assert said(first) == "runledger"
    second = user(data, "SHOW listen_addresses")
    assert said(second) == ""
    leave(first)
    assert is_running(data)
    leave(second)
    assert not is_running(data)


def test_what_was_stored_is_there_the_next_time(data: Path) -> None:
    leave(user(data, "CREATE TABLE kept (n int)"))
    again = user(data, "SELECT count(*) FROM pg_tables WHERE tablename = 'kept'")
    assert said(again) == "1"
    leave(again)


def test_a_user_that_was_killed_does_not_keep_it_running(data: Path) -> None:
    killed, other = user(data, "SELECT 1"), user(data, "SELECT 2")
    assert (said(killed), said(other)) == ("1", "2")
    killed.kill()
    killed.communicate()
    leave(other)
    assert not is_running(data)


def test_a_server_that_was_killed_is_started_again(data: Path) -> None:
    first = user(data, "SELECT pg_backend_pid()")
    said(first)
    pid = int((data / "postmaster.pid").read_text().split("\n")[0])
    subprocess.run(["kill", "-9", str(pid)], check=True)
    leave(first)
    again = user(data, "SELECT 1")
    assert said(again) == "1"
    leave(again)


def test_a_folder_that_is_no_cluster_is_explained(data: Path) -> None:
    data.mkdir()
    (data / "something").write_text("else")
    with pytest.raises(ConfigurationError, match=r"failed at initdb(.|\n)*Set DATABASE_URL"):
        EmbeddedPostgres(data).ensure_running()


def test_the_socket_is_in_a_private_folder_with_a_short_path(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / ("long" * 60) / "postgres")
    assert len(str(postgres.socket_dir / ".s.PGSQL.5432")) < 100


def test_a_folder_for_the_socket_that_somebody_else_has_laid_there_is_refused(data: Path, tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(data)
    postgres.socket_dir.symlink_to(tmp_path)
    try:
        with pytest.raises(ConfigurationError, match="made by somebody else"):
            postgres.ensure_running()
    finally:
        postgres.socket_dir.unlink()
    assert list(tmp_path.iterdir()) == []


def test_the_cluster_of_a_project_is_in_its_data_folder(testrun: Path) -> None:
    assert cluster_folder(testrun / "project") == testrun / "project" / "postgres"


def user(data: Path, statement: str) -> subprocess.Popen[str]:
    """A process that uses the server until it is told to leave."""
    return subprocess.Popen(
        [sys.executable, "-c", USE, str(data), statement],
        cwd=ROOT / "api",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def leave(process: subprocess.Popen[str]) -> None:
    process.communicate()
    assert process.returncode == 0


def is_running(data: Path) -> bool:
    return (data / "postmaster.pid").exists()
