"""`runledger db …`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Terminal, settle


def test_a_database_behind_is_noticed_upgraded_and_then_current(blank: Terminal) -> None:
    behind = blank.run("db", "check", "--json")
    assert behind.code == 1
    assert json.loads(behind.stdout)["current"] is False
    assert "runledger db upgrade" in behind.stderr
    applied = blank.json("db", "upgrade")["applied"]
    assert set(json.loads(behind.stdout)["missing"]) <= set(applied)
    assert blank.json("db", "check") == {"current": True, "missing": []}
    assert blank.json("db", "upgrade") == {"applied": []}


def test_an_upgrade_says_what_it_does(blank: Terminal) -> None:
    finished = blank.run("db", "upgrade")
    assert finished.stdout == f"The schema is up to date: {finished.stderr.count('Migrating: ')} revision(s) applied.\n"


def test_the_embedded_database_is_stopped_by_its_last_user(alone: Terminal, testrun: Path) -> None:
    data = testrun / "embedded"
    with alone.started("db", "upgrade", DATABASE_URL="", DATA_DIR=str(data)) as upgrade:
        finished = settle(upgrade)
    assert finished.code == 0, finished.stderr
    assert (data / "postgres" / "PG_VERSION").exists()
    assert not (data / "postgres" / "postmaster.pid").exists()
