"""Alembic makes the whole schema, and nothing else does."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from procrastinate.schema import SchemaManager
from sqlalchemy import URL, Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tests.conftest import alembic

from app.config import ROOT
from app.control import models as control_models  # noqa: F401 - their tables are part of the metadata
from app.engine import schema
from app.engine.connector import SQLAlchemyAsyncConnector
from app.engine.schema import installed_scripts, missing_revisions, named_scripts, refuse_unnamed_scripts
from app.errors import ConfigurationError
from app.outbound.postgres import adventure_tables, backlog, digests
from app.runs.state import RunState
from app.webhooks.models import Base

HEAD = "app_0021"
REVISIONS = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))

# Everything that a schema consists of; enum labels without their order, which upstream's own two ways differ in.
CATALOG = """
SELECT 'column', table_name || '.' || column_name || ' ' || udt_name || ' ' || is_nullable || ' '
       || coalesce(column_default, '') || ' ' || coalesce(character_maximum_length::text, '') AS thing
  FROM information_schema.columns WHERE table_schema = 'public' AND table_name LIKE 'procrastinate%'
UNION ALL SELECT 'index', indexdef FROM pg_indexes WHERE tablename LIKE 'procrastinate%'
UNION ALL SELECT 'function', pg_get_functiondef(oid) FROM pg_proc WHERE proname LIKE 'procrastinate%'
UNION ALL SELECT 'trigger', pg_get_triggerdef(oid) FROM pg_trigger
           WHERE NOT tgisinternal AND tgname LIKE 'procrastinate%'
UNION ALL SELECT 'constraint', conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
           WHERE conrelid::regclass::text LIKE 'procrastinate%'
UNION ALL SELECT 'enum', typname || ' ' || enumlabel FROM pg_enum JOIN pg_type ON pg_type.oid = enumtypid
"""


async def test_the_queue_branch_makes_what_upstream_makes(database: URL, empty_database: URL) -> None:
    upstream = create_async_engine(empty_database)
    connector = SQLAlchemyAsyncConnector(upstream)
    await SchemaManager(connector).apply_schema_async()
    await asyncio.to_thread(alembic, "downgrade", "app@base", url=database)
    ours = create_async_engine(database)
    assert await catalog(ours) == await catalog(upstream)
    assert len(await catalog(ours)) > 80
    await upstream.dispose()
    await ours.dispose()


def test_every_installed_script_is_named_by_a_revision_with_its_bytes() -> None:
    installed = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in installed_scripts().items()}
    assert named_scripts(REVISIONS) == installed


def test_a_new_upstream_script_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        schema, "installed_scripts", lambda: {**installed_scripts(), "99.00.00_01_pre_new.sql": Path("new.sql")}
    )
    with pytest.raises(ConfigurationError, match=r"no revision names: 99\.00\.00_01_pre_new\.sql"):
        refuse_unnamed_scripts(REVISIONS)


def test_an_upgrade_stops_at_a_script_that_no_revision_names(tmp_path: Path, empty_database: URL) -> None:
    scripts = copied_scripts(tmp_path)
    (scripts / "99.00.00_01_pre_new.sql").write_text("SELECT 1;")
    result = upgrade_with_scripts(scripts, empty_database)
    assert result.returncode != 0
    assert "no revision names: 99.00.00_01_pre_new.sql" in result.stderr


async def test_a_changed_upstream_script_is_not_run_and_its_revision_leaves_nothing_behind(
    tmp_path: Path, empty_database: URL
) -> None:
    scripts = copied_scripts(tmp_path)
    changed = max(path for path in scripts.glob("*.sql") if path.name < "02.07")
    changed.write_text(changed.read_text() + "\n-- changed")
    result = await asyncio.to_thread(upgrade_with_scripts, scripts, empty_database)
    assert f"{changed.name} of the installed procrastinate is not the script" in result.stderr
    engine = create_async_engine(empty_database)
    assert await catalog(engine) == []
    await engine.dispose()


async def test_an_upgrade_that_stopped_half_way_goes_on(tmp_path: Path, empty_database: URL) -> None:
    scripts = copied_scripts(tmp_path)
    last = max(scripts.glob("*.sql"))
    last.write_text(last.read_text() + "\n-- changed")
    assert (await asyncio.to_thread(upgrade_with_scripts, scripts, empty_database)).returncode != 0
    engine = create_async_engine(empty_database)
    assert await missing_revisions(engine) == {"queue_03_04_00", HEAD}
    await asyncio.to_thread(alembic, "upgrade", "heads", url=empty_database)
    assert await missing_revisions(engine) == set()
    await engine.dispose()


async def test_the_models_are_what_the_migrations_make(engine: AsyncEngine) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(
            connection,
            opts={
                # Texts have no model: there is a table for them only where pgvector is.
                "include_name": lambda name, kind, _: (
                    kind != "table" or not name.startswith(("procrastinate_", "texts"))
                ),
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        ours = [Base.metadata, adventure_tables.metadata, backlog.metadata, digests.metadata]
        return compare_metadata(context, ours)

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_the_states_in_the_code_are_those_that_the_database_allows(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        allowed = await connection.scalar(
            text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'ck_action_runs_state'")
        )
    assert {state for state in RunState if f"'{state}'" in allowed} == set(RunState)


async def test_the_app_branch_goes_up_and_down_and_up(database: URL, engine: AsyncEngine) -> None:
    before = await tables(engine)
    await asyncio.to_thread(alembic, "downgrade", "app@base", url=database)
    assert await tables(engine) == {name for name in before if name.startswith("procrastinate_")} | {"alembic_version"}
    assert await missing_revisions(engine) == {HEAD}
    await asyncio.to_thread(alembic, "upgrade", "heads", url=database)
    assert await tables(engine) == before
    assert await missing_revisions(engine) == set()


async def test_five_migrators_at_once_end_well(empty_database: URL) -> None:
    results = await asyncio.gather(
        *(asyncio.to_thread(alembic, "upgrade", "heads", url=empty_database) for _ in range(5))
    )
    assert [result.returncode for result in results] == [0] * 5
    engine = create_async_engine(empty_database)
    assert await missing_revisions(engine) == set()
    await engine.dispose()


async def test_offline_sql_makes_the_same_schema(empty_database: URL, database: URL) -> None:
    script = (await asyncio.to_thread(alembic, "upgrade", "heads", "--sql", url=empty_database)).stdout
    offline, online = create_async_engine(empty_database), create_async_engine(database)
    await SQLAlchemyAsyncConnector(offline).execute_query_async(script.replace("%", "%%"))
    assert await catalog(offline) == await catalog(online)
    assert await tables(offline) == await tables(online)
    assert await missing_revisions(offline) == set()
    await offline.dispose()
    await online.dispose()


async def test_jobs_that_are_older_than_the_ledger_get_their_runs(database: URL, engine: AsyncEngine) -> None:
    await asyncio.to_thread(alembic, "downgrade", "app@base", url=database)
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO procrastinate_jobs (queue_name, task_name, status) "
                "VALUES ('q', 'echo', 'todo'), ('q', 'echo', 'succeeded'), ('q', 'builtin:x', 'todo')"
            )
        )
    await asyncio.to_thread(alembic, "upgrade", "heads", url=database)
    async with engine.connect() as connection:
        runs = await connection.execute(
            text("SELECT action, run.state, seq FROM action_runs AS run JOIN run_events ON run_id = run.id")
        )
        assert runs.all() == [("echo", "queued", 1)]


async def test_a_database_that_is_ahead_of_the_code_lacks_nothing(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = 'app_9999'"))
    assert await missing_revisions(engine) == set()


def test_there_is_one_head_a_branch() -> None:
    assert set(REVISIONS.get_heads()) == {HEAD, "queue_03_04_00"}


async def catalog(engine: AsyncEngine) -> list[tuple[str, str]]:
    async with engine.connect() as connection:
        return sorted(tuple(row) for row in await connection.execute(text(CATALOG)))


async def tables(engine: AsyncEngine) -> set[str]:
    async with engine.connect() as connection:
        return set(await connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")))


def copied_scripts(folder: Path) -> Path:
    return Path(shutil.copytree(SchemaManager.get_migrations_path(), folder / "scripts"))


def upgrade_with_scripts(scripts: Path, url: URL) -> subprocess.CompletedProcess[str]:
    """`alembic upgrade heads` with another folder in the place of the installed scripts."""
    program = (
        "import pathlib, sys, procrastinate.schema, alembic.config\n"
        "procrastinate.schema.migrations_path = pathlib.Path(sys.argv[1])\n"
        "alembic.config.main(['upgrade', 'heads'])"
    )
    return subprocess.run(
        [sys.executable, "-c", program, str(scripts)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "DATABASE_URL": url.render_as_string(hide_password=False)},
        capture_output=True,
        text=True,
        check=False,
    )
