"""The database and its schema, prepared and examined."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import RevisionStep
from alembic.script import ScriptDirectory
from procrastinate.exceptions import ConnectorException
from sqlalchemy.ext.asyncio import AsyncEngine
from typing_extensions import override

from app.cli.failure import Failure
from app.cli.screen import say
from app.config import ROOT, Settings
from app.embedded import EmbeddedPostgres, cluster_folder
from app.engine.connector import translated_errors
from app.engine.schema import missing_revisions
from app.outbound.postgres.database import make_engine


def prepare_database(settings: Settings) -> None:
    """Start the embedded PostgreSQL unless another one is set, and bring the schema up to date.

    Raises:
        Failure: the database does not answer, or refuses.
        ConfigurationError: it cannot be started, or the installed Procrastinate is not the one migrations are for.
    """
    if settings.url is None:
        folder = cluster_folder(settings.data_dir)
        say(f"Starting PostgreSQL, data in {_short(folder)} …")
        EmbeddedPostgres(folder).ensure_running()
    upgrade(settings)


def upgrade(settings: Settings) -> list[str]:
    """Bring the schema up to date, and say each step.

    Returns:
        The revisions that were applied, in order; empty when there was nothing to do.

    Raises:
        Failure, ConfigurationError: as `prepare_database`.
    """
    with told_steps() as steps, answering(settings):
        command.upgrade(configuration(), "heads")
    return steps


async def missing(settings: Settings) -> set[str]:
    """The newest revisions that the database lacks.

    Raises:
        Failure: the database does not answer, or refuses.
    """
    async with open_engine(settings) as engine:
        with answering(settings):
            return await missing_revisions(engine)


def revisions() -> ScriptDirectory:
    """The migrations of this code."""
    return ScriptDirectory.from_config(configuration())


def configuration() -> Config:
    """Alembic's."""
    return Config(ROOT / "alembic.ini")


def place(settings: Settings) -> str:
    """Where the data is, without a password."""
    if settings.url is None:
        return f"embedded, data in {_short(cluster_folder(settings.data_dir))}"
    return settings.url.render_as_string(hide_password=True)


@contextlib.asynccontextmanager
async def open_engine(settings: Settings) -> AsyncGenerator[AsyncEngine]:
    """An engine for a few statements."""
    engine = make_engine(settings, pool_size=1)
    try:
        yield engine
    finally:
        await engine.dispose()


@contextlib.contextmanager
def answering(settings: Settings) -> Generator[None]:
    """Turn what a database says no with into a `Failure`."""
    try:
        with translated_errors():
            yield
    except ConnectorException as error:
        raise Failure(
            f"The database ({place(settings)}) does not do what it is asked: {_first_line(error.__cause__)}",
            "Check DATABASE_URL, and that this server runs and lets this user in.",
        ) from None


@contextlib.contextmanager
def told_steps() -> Generator[list[str]]:
    """Say which revisions Alembic runs, and collect their names."""
    steps: list[str] = []
    handler = _StepHandler(steps)
    # Alembic tells what it does to its log only.
    logger = logging.getLogger("alembic.runtime.migration")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield steps
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _StepHandler(logging.Handler):
    def __init__(self, steps: list[str]) -> None:
        super().__init__()
        self._steps = steps

    @override
    def emit(self, record: logging.LogRecord) -> None:
        for step in record.args or ():
            if isinstance(step, RevisionStep):
                say(f"Migrating: {step.doc}")
                self._steps.append(step.revision.revision)


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _first_line(error: BaseException | None) -> str:
    # Under SQLAlchemy's own error is the one that says it plainly.
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return str(error).partition("\n")[0] or type(error).__name__
