"""Procrastinate's schema, run out of the installed package by revisions that name each script and its SHA-256.

Nothing of upstream is copied: a revision in `alembic/queue/` holds `SCRIPTS = {name: sha256}` and calls `run_scripts`.
A script whose bytes have changed is not run; a script that no revision names stops the upgrade.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

from alembic import op
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from procrastinate.schema import SchemaManager
from sqlalchemy.ext.asyncio import AsyncEngine

from app.config import ROOT
from app.errors import ConfigurationError


def installed_scripts() -> dict[str, Path]:
    """The migration scripts of the installed Procrastinate, by name, in order."""
    return {path.name: path for path in sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))}


def run_scripts(scripts: Mapping[str, str]) -> None:
    """Run upstream scripts inside the current revision, or print them in offline mode.

    Args:
        scripts: name → SHA-256 in hex, in the order in which to run them.

    Raises:
        ConfigurationError: a script is missing or its bytes differ from those that the revision was written for.
    """
    for name, sha256 in scripts.items():
        run_sql(_verified(name, sha256))


def run_sql(script: str) -> None:
    """Run a script of many statements inside the current revision, or print it in offline mode."""
    context = op.get_context()
    if context.as_sql:
        context.impl.static_output(script)
        return
    # SQLAlchemy opens its transaction at the first statement it sends; the script must be inside.
    op.execute("SELECT 1")
    connection = op.get_bind().connection.dbapi_connection
    # asyncpg's execute without arguments takes a whole script, and leaves $$, % and : alone.
    connection.run_async(lambda driver: driver.execute(script))  # type: ignore[union-attr]


def refuse_unnamed_scripts(revisions: ScriptDirectory) -> None:
    """Stop when the installed package brings scripts that no revision names.

    Raises:
        ConfigurationError: the message names the scripts and says how to adopt them.
    """
    unnamed = [name for name in installed_scripts() if name not in named_scripts(revisions)]
    if unnamed:
        raise ConfigurationError(
            f"The installed procrastinate brings scripts that no revision names: {', '.join(unnamed)}. "
            "Add a revision to alembic/queue that names them (docs/how-to/upgrade-procrastinate.md), "
            "or install the version that requirements/ pins."
        )


def named_scripts(revisions: ScriptDirectory) -> dict[str, str]:
    """Every script that a revision names, with its SHA-256."""
    named: dict[str, str] = {}
    for revision in revisions.walk_revisions():
        named.update(getattr(revision.module, "SCRIPTS", {}))
    return named


async def missing_revisions(engine: AsyncEngine) -> set[str]:
    """The newest revisions of this code that the database has not been upgraded to.

    A database that is ahead lacks nothing: schema is upgraded first, while the code before it still works.
    """
    async with engine.connect() as connection:
        recorded = await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_heads())
    return set(_revisions().get_heads()) - _applied(recorded)


def _applied(recorded: tuple[str, ...]) -> set[str]:
    revisions = _revisions()
    known = {revision.revision for revision in revisions.walk_revisions()}
    if not known.issuperset(recorded):
        return known
    # A branch that another one depends on is not recorded by itself.
    return {revision.revision for revision in revisions.get_all_current(recorded)} if recorded else set()


@functools.cache
def _revisions() -> ScriptDirectory:
    return ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))


def _verified(name: str, sha256: str) -> str:
    path = installed_scripts().get(name)
    if path is None:
        raise ConfigurationError(f"The installed procrastinate has no script {name}. Install what requirements/ pins.")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ConfigurationError(
            f"{name} of the installed procrastinate is not the script that the revision was written for "
            f"(SHA-256 {hashlib.sha256(content).hexdigest()}). Nothing was run. Install what requirements/ pins."
        )
    return content.decode()
