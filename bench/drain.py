"""How fast one worker process drains a queue of no-op jobs: ours, with the full ledger, beside its peers.

usage: python bench/drain.py [JOBS] [CONCURRENCY] [ROUNDS]

One PostgreSQL with default durability; contenders alternate, each round on a fresh database made by Alembic;
the medians and their ratios count, not the absolute figures of a shared machine.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncpg
from sqlalchemy import URL

from app.embedded import EmbeddedPostgres

HERE = Path(__file__).parent
CONTENDERS = ("procrastinate_bare", "runledger_runs")


def main(jobs: int, concurrency: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="runledger-bench-") as folder:
        Path(folder).chmod(0o755)
        postgres = EmbeddedPostgres(Path(folder) / "postgres")
        postgres.ensure_running()
        try:
            seconds = {name: [] for name in CONTENDERS}
            for _ in range(rounds):
                for name in CONTENDERS:
                    seconds[name].append(drain(name, postgres.url, jobs, concurrency))
        finally:
            postgres.release()
    report(jobs, {name: statistics.median(taken) for name, taken in seconds.items()})


def drain(name: str, server: URL, jobs: int, concurrency: int) -> float:
    """Seconds that a contender took, in a process and on a database of its own."""
    database = server.set(database="bench")
    asyncio.run(recreate(server))
    url = database.render_as_string(hide_password=False)
    subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "heads"],
        cwd=HERE.parent, env={**os.environ, "DATABASE_URL": url}, check=True, capture_output=True,
    )  # fmt: skip
    result = subprocess.run(
        [sys.executable, str(HERE / "contenders" / f"{name}.py"), url, str(jobs), str(concurrency)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(result.stdout.split()[-1])


async def recreate(server: URL) -> None:
    connection = await asyncpg.connect(host=server.query["host"], user=server.username, database=server.database)
    await connection.execute("DROP DATABASE IF EXISTS bench WITH (FORCE)")
    await connection.execute("CREATE DATABASE bench")
    await connection.close()


def report(jobs: int, medians: dict[str, float]) -> None:
    slowest = max(medians.values())
    for name, seconds in medians.items():
        print(f"{name:22} {jobs / seconds:8.0f} jobs/s  x {slowest / seconds:.2f}")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(*[*given, *(2_000, 10, 3)[len(given) :]])
