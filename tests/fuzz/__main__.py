"""Requests made up from the OpenAPI document, whatever routes it has, against the API and a worker: `make fuzz`.

No answer may be a 5xx, have a status, a media type or a shape that is not documented, or accept what the document
forbids. `SECONDS` (60) and `SEED` (random, printed) can be set.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import httpx2
from sqlalchemy import URL
from tests.conftest import FAST, alembic
from tests.support.eventually import eventually
from tests.support.processes import environment, free_port, running

from app.config import ROOT, Settings
from app.embedded import EmbeddedPostgres

NOT_ASKED = {
    # Params depend on the action, and ids and cursors on what was stored: what fits the document may be refused.
    "positive_data_acceptance",
    # It takes ids of an adventure's entries for ids of adventures. That what was created is found, other tests show.
    "ensure_resource_availability",
    # Who may do what has a test of its own, which walks all routes.
    "object_level_authorization",
}


def main() -> int:
    seconds = int(os.environ.get("SECONDS") or 60)
    seed = int(os.environ.get("SEED") or random.randrange(1_000_000))
    print(f"Fuzzing for {seconds} s: SEED={seed}", flush=True)  # noqa: T201
    folder = Path(tempfile.mkdtemp(prefix="runledger-fuzz-"))
    folder.chmod(0o755)
    with database(folder) as url, api_and_worker(url, folder) as api:
        code = subprocess.run(command(api, seconds, seed), cwd=folder).returncode
    errors = [line for line in (folder / "api.log").read_text().splitlines() if "[error" in line]
    print("\n".join(errors[:20]) if errors else "The API has logged no error.")  # noqa: T201
    return code or bool(errors)


def command(api: str, seconds: int, seed: int) -> list[str]:
    return [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{api}/openapi.json",
        "--checks=all", f"--exclude-checks={','.join(sorted(NOT_ASKED))}",
        f"--max-time={seconds}", f"--seed={seed}", "--continue-on-failure", "--request-timeout=10",
        "--generation-database=none", "--suppress-health-check=all", "--warnings=off", "--no-color",
    ]  # fmt: skip


@contextlib.contextmanager
def database(folder: Path) -> Generator[URL]:
    """A migrated database of its own."""
    embedded = EmbeddedPostgres(folder / "postgres", FAST)
    embedded.ensure_running()
    try:
        alembic("upgrade", "heads", url=embedded.url)
        yield embedded.url
    finally:
        embedded.release()


@contextlib.contextmanager
def api_and_worker(database: URL, folder: Path) -> Generator[str]:
    """The URL of an API that everybody may call, with a worker that performs what is submitted."""
    settings = Settings(_env_file=None, environment="test", database_url=database.render_as_string(hide_password=False))
    port = free_port()
    env = environment(settings, ALLOW_ANONYMOUS="true", DATA_DIR=str(folder), PYTHONPATH=f"{ROOT}:{ROOT / 'api'}")
    with (
        running("-m", "app.worker_main", env=env, log=folder / "worker.log"),
        running("-m", "tests.fuzz.server", str(port), env=env, log=folder / "api.log"),
    ):
        url = f"http://127.0.0.1:{port}"
        asyncio.run(_ready(url))
        yield url


async def _ready(url: str) -> None:
    async with httpx2.AsyncClient() as client:

        async def answers() -> bool:
            with contextlib.suppress(httpx2.TransportError):
                return (await client.get(f"{url}/readyz")).is_success
            return False

        await eventually(answers, within=60)


if __name__ == "__main__":
    sys.exit(main())
