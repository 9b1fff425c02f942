"""A PostgreSQL cluster of a test process's own: it may be stopped, filled and made read-only."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import asyncpg
from sqlalchemy import URL
from tests.conftest import FAST, alembic, scratch
from tests.support.processes import free_port

from app.embedded import EmbeddedPostgres

# The server is killed here, and what it acknowledged must be there afterwards; the machine is not, so no fsync.
SMALL = {
    "synchronous_commit": "on",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "superuser_reserved_connections": "5",
    # Half a megabyte: what everybody announces while one session does not listen.
    "max_notify_queue_pages": "64",
}
OWNER = "runledger"


@dataclass(frozen=True)
class Cluster:
    """The embedded PostgreSQL's binaries, on a port of loopback. Applications connect as an ordinary role."""

    folder: Path
    postgres: EmbeddedPostgres
    port: int
    template: str = "template_faults"

    @classmethod
    def create(cls) -> Cluster:
        """Make one, start it and migrate its template."""
        folder = Path(tempfile.mkdtemp(prefix="runledger-faults-", dir=scratch()))
        folder.chmod(0o755)
        cluster = cls(folder, EmbeddedPostgres(folder / "postgres", FAST | SMALL), free_port())
        cluster.postgres._create()
        cluster.start()
        for statement in (f"CREATE ROLE {OWNER} LOGIN", f'CREATE DATABASE "{cluster.template}" OWNER {OWNER}'):
            cluster._run("psql", "-h", str(cluster.postgres.socket_dir), "-p", str(cluster.port), "-U", "postgres",
                         "-d", "postgres", "-c", statement)  # fmt: skip
        alembic("upgrade", "heads", url=cluster.url.set(database=cluster.template))
        return cluster

    @property
    def url(self) -> URL:
        """How applications reach it."""
        return URL.create("postgresql+asyncpg", username=OWNER, host="127.0.0.1", port=self.port, database="postgres")

    def start(self) -> None:
        sockets = self.postgres.socket_dir
        sockets.mkdir(mode=0o700, exist_ok=True)
        self.postgres._give(sockets)
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories='{sockets}'"
        self._run("pg_ctl", "start", "-w", "-t", "60", "-D", str(self.postgres.data), "-l",
                  str(self.postgres.data / "log"), "-o", options)  # fmt: skip

    def stop(self, mode: Literal["immediate", "fast"] = "immediate") -> None:
        self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self.postgres.data))

    def remove(self) -> None:
        with contextlib.suppress(Exception):
            self.stop()
        shutil.rmtree(self.postgres.socket_dir, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.asynccontextmanager
    async def superuser(self, database: str = "postgres") -> AsyncGenerator[asyncpg.Connection]:
        """A connection that gets in when nobody else does."""
        connection = await asyncpg.connect(
            host=str(self.postgres.socket_dir), port=self.port, user="postgres", database=database
        )
        try:
            yield connection
        finally:
            await connection.close()

    @contextlib.asynccontextmanager
    async def full_notify_queue(self, database: str) -> AsyncGenerator[None]:
        """Until the end of the block, nothing more can be announced: a session that listens sits in a transaction."""
        async with self.superuser(database) as pinning, self.superuser(database) as talking:
            for statement in ("LISTEN anything", "BEGIN", "SELECT 1"):
                await pinning.execute(statement)
            for size in (7000, 100, 1):
                with contextlib.suppress(asyncpg.ProgramLimitExceededError):
                    while True:
                        await talking.execute("SELECT pg_notify('anything', repeat('x', $1))", size)
            yield

    async def execute(self, *statements: str, database: str = "postgres") -> None:
        async with self.superuser(database) as connection:
            for statement in statements:
                await connection.execute(statement)

    def _run(self, command: str, *arguments: str) -> None:
        self.postgres._run(command, *arguments)


def mounted_tmpfs(folder: Path, size: str) -> bool:
    """Mount a small file system; false where that is not allowed."""
    if os.getuid():
        return False
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", str(folder)], capture_output=True, check=False
    )
    return mounted.returncode == 0


def unmounted(folder: Path) -> None:
    """Take a small file system away."""
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)
