"""`runledger runs …` and `runledger actions`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.cli.conftest import Terminal

from app.cli.events import line
from runledger_client import Event


def test_actions_are_listed_with_their_params(house: Terminal) -> None:
    table = house.run("actions").stdout
    assert ["sleep", "seconds?", "message?"] in [line.split()[:3] for line in table.splitlines()]
    assert {"echo", "count_words"} <= {action["name"] for action in house.json("actions")}


def test_runs_are_listed_newest_first_and_narrowed(house: Terminal) -> None:
    first, second = (house.json("run", "echo", "-i", "message=hi", "--tag", "listed")["id"] for _ in range(2))
    items = house.json("runs", "list", "--tag", "listed", "--action", "echo")["items"]
    assert [item["id"] for item in items] == [second, first]
    assert len(house.json("runs", "list", "--limit", "1")["items"]) == 1
    assert house.json("runs", "list", "--tag", "listed", "--state", "cancelled")["items"] == []


def test_a_run_is_one_line_where_no_terminal_is(house: Terminal) -> None:
    house.run("run", "scrape_page", "-i", f"url={house.env['RUNLEDGER_URL']}/nowhere", "--wait")
    heading, *lines = house.run("runs", "list", "--action", "scrape_page").stdout.splitlines()
    assert heading.split() == ["ID", "ACTION", "STATE", "CREATED", "NOTE"]
    assert all(line.startswith("run_") for line in lines)
    assert "404" in lines[0]


def test_a_run_tells_where_it_failed_when_asked(house: Terminal) -> None:
    finished = house.run("run", "scrape_page", "-i", f"url={house.env['RUNLEDGER_URL']}/nowhere", "--wait", "--json")
    run_id = json.loads(finished.stdout)["id"]
    assert "Traceback" not in house.run("runs", "get", run_id).stdout
    assert "Traceback" in house.run("runs", "get", run_id, "--traceback").stdout
    assert "Traceback" in house.json("runs", "get", run_id, "--traceback")["traceback"]


def test_a_tail_is_the_whole_history_and_ends_with_the_run(house: Terminal) -> None:
    run_id = house.submit("count_words", text="to be or not to be")
    events = [json.loads(line) for line in house.run("runs", "tail", run_id, "--json").stdout.splitlines()]
    assert [event["data"]["state"] for event in events if event["type"] == "state"] == [
        "queued",
        "running",
        "succeeded",
    ]
    assert (events[-1]["type"], events[-1]["data"]["result"]["total"]) == ("end", 6)
    lines = house.run("runs", "tail", run_id).stdout.splitlines()
    assert len(lines) == len(events) - 1
    assert lines[-1].endswith("succeeded (attempt 1)")


def test_a_waiting_run_is_cancelled_at_once_and_can_be_retried(house: Terminal) -> None:
    run_id = house.json("run", "echo", "-i", "message=hi", "--at", "2100-01-01")["id"]
    assert house.run("runs", "cancel", run_id).stdout == f"{run_id} cancelled\n"
    assert house.run("runs", "cancel", run_id).stdout == f"{run_id} cancelled\n", "asked again, the same"
    assert house.run("runs", "retry", run_id).code == 0
    house.run("runs", "tail", run_id)
    ended = house.run("runs", "cancel", run_id)
    assert ended.code == 1
    assert "The run has ended" in ended.stderr
    assert house.json("runs", "get", run_id)["state"] == "succeeded"


def test_a_running_run_is_asked_to_stop(house: Terminal) -> None:
    run_id = house.submit("sleep", seconds=600)
    house.run("runs", "cancel", run_id)
    assert house.run("runs", "tail", run_id).stdout.splitlines()[-1].endswith(("cancelled", "cancelled (attempt 1)"))


def test_a_run_that_waits_says_why(house: Terminal) -> None:
    run_id = house.json("run", "echo", "-i", "message=hi", "--at", "2100-01-01T00:00+00:00")["id"]
    assert "why          It is scheduled for 2100-01-01T00:00:00Z." in house.run("runs", "get", run_id).stdout
    house.run("runs", "cancel", run_id)
    assert "why " not in house.run("runs", "get", run_id).stdout


def test_a_run_is_told_something_once(house: Terminal) -> None:
    run_id = house.json("run", "echo", "-i", "message=hi", "--at", "2100-01-01")["id"]
    assert house.run("runs", "signal", run_id, "seen").stdout == f"{run_id} was told seen\n"
    for name, written, data in (("a", '{"by": "ada"}', {"by": "ada"}), ("b", "yes", "yes"), ("c", "7", 7)):
        told = house.json("runs", "signal", run_id, name, written)
        assert (told["run_id"], told["name"], told["data"]) == (run_id, name, data)
    again = house.run("runs", "signal", run_id, "seen", "something else")
    assert (again.code, again.stdout) == (1, "")
    assert "with other data" in again.stderr


@pytest.mark.parametrize(
    ("waits_for", "words"),
    [
        ({"children": 1}, "waits for a child"),
        ({"children": 3}, "waits for 3 children"),
        ({"signal": "approved"}, "waits for the signal approved"),
        (
            {"signal": "approved", "until": "2100-01-01T12:00:00+00:00"},
            "waits for the signal approved until 2100-01-01",
        ),
    ],
)
def test_what_a_run_waits_for_is_told_in_words(waits_for: dict[str, Any], words: str) -> None:
    told = line(Event("3", "state", {"state": "scheduled", "attempt": 1, "waits_for": waits_for}))
    assert told.startswith(f"scheduled (attempt 1) — {words}")


def test_an_id_that_no_run_has_is_exit_code_1(house: Terminal) -> None:
    for command, *more in (["get"], ["tail"], ["cancel"], ["retry"], ["signal", "approved"]):
        finished = house.run("runs", command, "run_20200101T000000Z_00000000", *more)
        assert (finished.code, finished.stdout) == (1, "")
        assert "Run not found" in finished.stderr
        assert "runledger runs list" in finished.stderr
