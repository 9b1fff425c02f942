"""One PostgreSQL with default durability, and databases made the way each contender's users make them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import URL

from app.embedded import EmbeddedPostgres

HERE = Path(__file__).parent


class Server:
    """Where everything is measured. `fresh` gives an empty database; contenders run in processes of their own."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self.url = url.set(database="bench")

    @classmethod
    @contextlib.contextmanager
    def started(cls) -> Iterator[Server]:
        with tempfile.TemporaryDirectory(prefix="runledger-bench-") as folder:
            Path(folder).chmod(0o755)
            postgres = EmbeddedPostgres(Path(folder) / "postgres")
            postgres.ensure_running()
            try:
                server = cls(postgres.url)
                server._make_template()
                yield server
            finally:
                postgres.release()

    def fresh(self, *, migrated: bool) -> None:
        """An empty database in the place of the last one: with our schema, or without any."""
        template = "bench_template" if migrated else "template0"
        asyncio.run(self._recreate("bench", template))

    def execute(self, *statements: str) -> None:
        async def execute() -> None:
            connection = await self.connect()
            for statement in statements:
                await connection.execute(statement)
            await connection.close()

        asyncio.run(execute())

    def query(self, statement: str) -> list[Any]:
        async def query() -> list[Any]:
            connection = await self.connect()
            rows = await connection.fetch(statement)
            await connection.close()
            return list(rows)

        return asyncio.run(query())

    async def connect(self, database: str = "bench") -> asyncpg.Connection:
        return await asyncpg.connect(host=self.url.query["host"], user=self.url.username, database=database)

    def run(self, contender: str, *arguments: object) -> dict[str, float]:
        """What a contender measured, in a process of its own."""
        process = subprocess.run(self.command(contender, *arguments), check=False, capture_output=True, text=True)
        if process.returncode:
            raise RuntimeError(f"{contender} failed:\n{process.stderr[-3000:]}")
        return json.loads(process.stdout.splitlines()[-1])

    def command(self, contender: str, *arguments: object) -> list[str]:
        """`python contenders/NAME.py URL …`"""
        url = self.url.render_as_string(hide_password=False)
        return [sys.executable, str(HERE / "contenders" / f"{contender}.py"), url, *map(str, arguments)]

    def _make_template(self) -> None:
        asyncio.run(self._recreate("bench_template", "template0"))
        url = self._url.set(database="bench_template").render_as_string(hide_password=False)
        subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", "heads"],
            cwd=HERE.parent, env={**os.environ, "DATABASE_URL": url}, check=True, capture_output=True,
        )  # fmt: skip

    async def _recreate(self, name: str, template: str) -> None:
        connection = await self.connect("postgres")
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        await connection.close()
