"""`runledger doctor`."""

from __future__ import annotations

import json
import socket
from typing import Any

from tests.cli.conftest import Finished, Terminal
from tests.support.processes import free_port


def test_a_house_in_order_is_all_ok(house: Terminal) -> None:
    findings = house.json("doctor")
    assert [finding["check"] for finding in findings] == [
        "python", "settings", "procrastinate", "port", "database", "schema", "workers",
    ]  # fmt: skip
    assert {finding["level"] for finding in findings} == {"ok"}
    assert house.run("doctor").stdout.count("\n") == len(findings) + 1


def test_without_a_worker_it_is_a_warning(alone: Terminal) -> None:
    findings = alone.json("doctor", PORT=str(free_port()))
    assert findings[-1] | {"found": ""} == {
        "level": "warn", "check": "workers", "found": "", "advice": "Start one with: runledger worker",
    }  # fmt: skip


def test_a_schema_behind_fails_and_what_stands_on_it_is_not_looked_at(blank: Terminal) -> None:
    *_, last = failed(blank.run("doctor", "--json", PORT=str(free_port())))
    assert (last["check"], last["advice"]) == ("schema", "Run: runledger db upgrade")


def test_a_database_that_does_not_answer_fails(blank: Terminal) -> None:
    url = f"postgresql://u:hidden@127.0.0.1:{free_port()}/x"
    finished = blank.run("doctor", "--json", DATABASE_URL=url, PORT=str(free_port()))
    *_, last = failed(finished)
    assert last["check"] == "database"
    assert "hidden" not in finished.stdout + finished.stderr


def test_a_port_taken_by_a_stranger_fails(alone: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.settimeout(0)
        findings = failed(alone.run("doctor", "--json", PORT=str(stranger.getsockname()[1])))
    assert [finding["level"] for finding in findings if finding["check"] == "port"] == ["fail"]


def test_wrong_settings_fail_and_nothing_else_is_looked_at(alone: Terminal) -> None:
    *_, last = failed(alone.run("doctor", "--json", PORT="http"))
    assert last["check"] == "settings"
    assert "PORT" in last["found"]


def test_an_embedded_database_that_was_not_made_is_not_made_by_looking(alone: Terminal, testrun: Any) -> None:
    data = testrun / "never-made"
    *_, last = alone.json("doctor", DATABASE_URL="", DATA_DIR=str(data), PORT=str(free_port()))
    assert (last["level"], last["check"]) == ("warn", "database")
    assert not data.exists()


def failed(finished: Finished) -> list[dict[str, Any]]:
    assert finished.code == 1, finished.stderr
    findings = json.loads(finished.stdout)
    assert "fail" in {finding["level"] for finding in findings}
    return findings
