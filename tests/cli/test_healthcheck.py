"""`runledger worker healthcheck`: what containers and probes ask about the worker beside them."""

from __future__ import annotations

import socket

from sqlalchemy import URL
from tests.cli.conftest import Terminal
from tests.conftest import _psql
from tests.support.processes import free_port


def beaten(database: URL, host: str, *, seconds_ago: float) -> None:
    """A worker of that host was heard of then."""
    _psql(
        database,
        f"""
        WITH beat AS (
            INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '{seconds_ago} s') RETURNING id
        )
        INSERT INTO workers (id, host, pid, version, actions, concurrency)
        SELECT id, '{host}', 1, '0', '{{}}', 1 FROM beat
        """,
    )


def test_a_worker_that_works_is_healthy(house: Terminal) -> None:
    finished = house.run("worker", "healthcheck")
    assert finished.code == 0, finished.stderr
    assert finished.stdout.startswith(f"The worker of {socket.gethostname()} was heard of ")
    assert house.json("worker", "healthcheck")["heartbeat_seconds"] < 2


def test_a_worker_that_the_command_line_starts_becomes_healthy(alone: Terminal) -> None:
    assert alone.run("worker", "healthcheck").code == 1
    with alone.started("worker"):
        assert any(alone.run("worker", "healthcheck").code == 0 for _ in range(1_000))


def test_who_has_been_silent_for_a_lease_is_not(alone: Terminal, database: URL) -> None:
    beaten(database, socket.gethostname(), seconds_ago=40)
    finished = alone.run("worker", "healthcheck", LEASE_SECONDS="30")
    assert (finished.code, finished.stdout) == (1, "")
    assert "was last heard of 40 s ago" in finished.stderr
    assert alone.run("worker", "healthcheck", LEASE_SECONDS="50").code == 0


def test_workers_elsewhere_are_no_help(alone: Terminal, database: URL) -> None:
    beaten(database, "elsewhere", seconds_ago=0)
    finished = alone.run("worker", "healthcheck")
    assert finished.code == 1
    assert f"No worker of {socket.gethostname()} is known." in finished.stderr


def test_of_several_workers_beside_it_one_that_works_is_enough(alone: Terminal, database: URL) -> None:
    for seconds in (500, 0.1):
        beaten(database, socket.gethostname(), seconds_ago=seconds)
    assert alone.run("worker", "healthcheck").code == 0


def test_without_a_database_nobody_is_healthy(blank: Terminal) -> None:
    url = f"postgresql://u:hidden@127.0.0.1:{free_port()}/x"
    finished = blank.run("worker", "healthcheck", DATABASE_URL=url)
    assert finished.code == 1
    assert "hidden" not in finished.stderr
