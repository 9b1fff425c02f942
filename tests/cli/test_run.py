"""`runledger run`: submit, wait, detach."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

from tests.cli.conftest import Terminal, settle

from app.runs.schemas import RUN_ID


def test_a_run_prints_its_id_and_nothing_else(house: Terminal) -> None:
    finished = house.run("run", "echo", "-i", "message=hi")
    assert (finished.code, finished.stderr) == (0, "")
    assert RUN_ID.fullmatch(finished.stdout.strip())


def test_the_options_of_a_run_are_those_of_the_api(house: Terminal) -> None:
    options = "--queue slow --priority -3 --lock l --tag a --tag b --at 2100-01-01T00:00+00:00"
    run = house.json("run", "echo", "-i", "message=hi", *options.split())
    assert (run["queue"], run["priority"], run["lock"], run["tags"]) == ("slow", -3, "l", ["a", "b"])
    assert (run["state"], run["schedule_at"]) == ("scheduled", "2100-01-01T00:00:00Z")


def test_params_come_from_values_files_and_stdin(house: Terminal, tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text('{"seconds": 0}')
    run = house.run(
        "run", "sleep", "-i", f"@{tmp_path}/params.json", "-i", "-", "--json", typed='{"message": "good night"}'
    )
    assert json.loads(run.stdout)["params"] == {"seconds": 0.0, "message": "good night"}


def test_waiting_prints_the_result_on_stdout_and_the_rest_on_stderr(house: Terminal) -> None:
    finished = house.run("run", "count_words", "-i", "text=to be or not to be", "--wait")
    assert finished.code == 0
    assert json.loads(finished.stdout)["total"] == 6
    for word in ("run_", "queued", "running", "6 of 6", "succeeded"):
        assert word in finished.stderr


def test_waiting_with_json_prints_the_run_as_it_ended(house: Terminal) -> None:
    run = house.json("run", "echo", "-i", "message=hi", "--wait")
    assert (run["state"], run["result"]) == ("succeeded", {"message": "hi"})


def test_a_failed_run_is_exit_code_1_with_its_reason(house: Terminal) -> None:
    missing = house.env["RUNLEDGER_URL"] + "/nowhere"
    finished = house.run("run", "scrape_page", "-i", f"url={missing}", "--wait")
    assert (finished.code, finished.stdout) == (1, "")
    assert "404" in finished.stderr
    assert "runledger runs get run_" in finished.stderr


def test_a_cancelled_run_is_exit_code_1(house: Terminal) -> None:
    with house.started("run", "sleep", "-i", "seconds=600", "--wait") as waiting:
        house.run("runs", "cancel", first_line(waiting))
        finished = settle(waiting)
    assert (finished.code, finished.stdout) == (1, "")
    assert "The run was cancelled." in finished.stderr


def test_ctrl_c_detaches_and_the_run_goes_on(house: Terminal) -> None:
    with house.started("run", "sleep", "-i", "seconds=600", "--wait") as waiting:
        run_id = first_line(waiting)
        waiting.send_signal(signal.SIGINT)
        finished = settle(waiting)
    assert (finished.code, finished.stdout) == (130, "")
    assert f"{house.env['RUNLEDGER_URL']}/runs/{run_id}" in finished.stderr
    assert house.json("runs", "get", run_id)["state"] in ("queued", "running")
    house.run("runs", "cancel", run_id)


def test_wrong_usage_is_exit_code_2(house: Terminal) -> None:
    for arguments in (["run"], ["run", "echo", "-i", "message"], ["run", "echo", "--at", "soon"], ["nonsense"]):
        finished = house.run(*arguments)
        assert (finished.code, finished.stdout) == (2, "")


def test_nothing_is_coloured_where_no_terminal_is(house: Terminal) -> None:
    finished = house.run("run", "echo", "-i", "message=\x1b[31mred", "--wait")
    assert not re.search(r"\x1b", finished.stdout + finished.stderr)


def first_line(process: subprocess.Popen[str]) -> str:
    """The run's id, which is said before it is waited for."""
    assert process.stderr is not None
    return process.stderr.readline().strip()
