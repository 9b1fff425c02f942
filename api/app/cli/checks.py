"""What the doctor looks at, from the ground up: what stands on something broken is not looked at."""

from __future__ import annotations

import platform
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal

import httpx2
from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli import queries
from app.cli.address import PortTaken, require_free, url_of
from app.cli.failure import Failure
from app.cli.schema import answering, open_engine, place, revisions
from app.config import Settings, get_settings
from app.embedded import cluster_folder
from app.engine.schema import missing_revisions, refuse_unnamed_scripts
from app.errors import ConfigurationError

OLDEST_PYTHON = (3, 11)
OLDEST_POSTGRESQL = 140_000
PATIENCE_SECONDS = 3.0
LONG_WAIT_SECONDS = 60


@dataclass(frozen=True)
class Finding:
    """One check's outcome: how bad it is, what was found, what to do about it."""

    level: Literal["ok", "warn", "fail"]
    check: str
    found: str
    advice: str | None = None


async def examine() -> list[Finding]:
    """Every finding, in the order in which to mend what fails."""
    findings = [check_python()]
    try:
        settings = get_settings()
        settings.check_exposure()
    except ConfigurationError as error:
        return [*findings, Finding("fail", "settings", str(error), "Correct them in the environment or in .env.")]
    findings += [Finding("ok", "settings", f"valid, for {settings.environment}"), check_scripts()]
    findings.append(await check_port(settings))
    return findings + [finding async for finding in check_database(settings)]


def check_python() -> Finding:
    """Its version is one that this code runs on."""
    if sys.version_info < OLDEST_PYTHON:
        return Finding("fail", "python", platform.python_version(), "Install Python 3.11 or newer.")
    return Finding("ok", "python", platform.python_version())


def check_scripts() -> Finding:
    """A migration names every script of the installed Procrastinate."""
    try:
        refuse_unnamed_scripts(revisions())
    except ConfigurationError as error:
        return Finding("fail", "procrastinate", str(error), "Install what requirements/ pins.")
    return Finding("ok", "procrastinate", "its scripts are those that the migrations name")


async def check_port(settings: Settings) -> Finding:
    """Our API listens on the port, or nobody does."""
    url = url_of(settings.host, settings.port)
    try:
        require_free(settings.host, settings.port)
    except PortTaken as taken:
        if await _is_ours(url):
            return Finding("ok", "port", f"the API answers at {url}")
        return Finding("fail", "port", taken.message, taken.advice)
    except Failure as failure:
        return Finding("fail", "port", failure.message, failure.advice)
    return Finding("ok", "port", f"{settings.port} is free: no API runs there", "Start one with: runledger up")


async def check_database(settings: Settings) -> AsyncGenerator[Finding]:
    """The server, its schema, and what waits in it."""
    if settings.url is None and not (cluster_folder(settings.data_dir) / "PG_VERSION").exists():
        yield Finding("warn", "database", f"{place(settings)}: not made yet", "Make it with: runledger up")
        return
    try:
        async with open_engine(settings) as engine:
            with answering(settings):
                async with engine.connect() as connection:
                    yield await check_server(connection, settings)
                missing = await missing_revisions(engine)
                yield check_schema(missing)
                if not missing:
                    async with engine.connect() as connection:
                        yield await check_workers(connection, settings)
    except Failure as failure:
        yield Finding("fail", "database", failure.message, failure.advice)
    except ConfigurationError as error:
        yield Finding("fail", "database", str(error))


async def check_server(connection: AsyncConnection, settings: Settings) -> Finding:
    """It answers, and is new enough."""
    version, number = await queries.get_server_version(connection)
    if number < OLDEST_POSTGRESQL:
        return Finding("fail", "database", f"PostgreSQL {version}", "Use PostgreSQL 14 or newer.")
    return Finding("ok", "database", f"PostgreSQL {version}, {place(settings)}")


def check_schema(missing: set[str]) -> Finding:
    """It is the one that this code needs."""
    if missing:
        return Finding("fail", "schema", f"lacks {', '.join(sorted(missing))}", "Run: runledger db upgrade")
    return Finding("ok", "schema", "up to date")


async def check_workers(connection: AsyncConnection, settings: Settings) -> Finding:
    """Somebody performs what waits."""
    workers = await queries.count_living_workers(connection, lease=settings.lease_seconds)
    waiting, seconds = await queries.count_waiting_runs(connection)
    found = f"{workers} alive, {waiting} run(s) waiting"
    if not workers:
        return Finding("warn", "workers", found, "Start one with: runledger worker")
    if waiting and (seconds or 0) > LONG_WAIT_SECONDS:
        return Finding(
            "warn", "workers", f"{found}, the oldest for {seconds:.0f} s", "Start another, or look at locks and queues."
        )
    return Finding("ok", "workers", found)


async def _is_ours(url: str) -> bool:
    try:
        async with httpx2.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False) as http:
            answer = await http.get(f"{url}/livez")
            return answer.is_success and answer.json() == {"status": "alive"}
    except (httpx2.TransportError, ValueError):
        return False
