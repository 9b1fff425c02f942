"""Whatever goes wrong is one clear message that says what to do, never a traceback."""

from __future__ import annotations

import pytest
from scripts.sites import DemoSite
from tests.cli.conftest import Terminal, settle
from tests.support.processes import free_port


def test_an_unknown_action_leads_to_the_list_of_actions(house: Terminal) -> None:
    assert failure(house, "run", "ehco") == (
        "Unknown action: There is no action of that name. GET /actions lists those there are.\n"
        "List those there are with: runledger actions\n"
    )


def test_each_wrong_param_is_named_by_its_pointer(house: Terminal) -> None:
    said = failure(house, "run", "sleep", "-i", "seconds=soon", "-i", "massage=x")
    assert "/params/seconds: " in said
    assert "/params/massage: " in said
    assert "soon" not in said


def test_a_wrong_secret_says_which_setting_is_wrong(house: Terminal) -> None:
    assert "ROADMAP_AI_SECRET" in failure(house, "runs", "list", ROADMAP_AI_SECRET="wrong")


@pytest.mark.parametrize("command", [["run", "echo"], ["runs", "tail", "run_1"], ["actions"]])
def test_an_api_that_is_not_there_is_said_with_how_to_start_it(house: Terminal, command: list[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    said = failure(house, *command, RUNLEDGER_URL=url)
    assert f"The API at {url} does not answer" in said
    assert "runledger up" in said


def test_a_server_that_is_not_ours_is_told_apart(house: Terminal) -> None:
    with DemoSite() as site:
        assert "not as Runledger's API does" in failure(house, "actions", RUNLEDGER_URL=site.url)
        assert "not as Runledger's API does" in failure(house, "runs", "tail", "x", RUNLEDGER_URL=site.url)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://[", "nonsense"])
def test_a_url_that_is_none_names_the_setting(house: Terminal, url: str) -> None:
    assert "RUNLEDGER_URL" in failure(house, "runs", "list", RUNLEDGER_URL=url)


def test_wrong_settings_are_exit_code_78_and_name_the_variable(house: Terminal) -> None:
    for command in (["runs", "list"], ["up"], ["api"], ["db", "check"], ["db", "upgrade"]):
        finished = house.run(*command, POLL_SECONDS="often")
        assert (finished.code, finished.stdout) == (78, "")
        assert finished.stderr.startswith("Invalid settings. POLL_SECONDS: ")


def test_a_process_of_its_own_ends_without_a_traceback_too(house: Terminal) -> None:
    for command in (["runs", "get", "nonsense"], ["worker"]):
        with house.started(*command, POLL_SECONDS="often") as process:
            finished = settle(process)
        assert finished.code == 78
        assert "Traceback" not in finished.stderr


def failure(terminal: Terminal, *arguments: str, **env: str) -> str:
    finished = terminal.run(*arguments, **env)
    assert (finished.code, finished.stdout) == (1, ""), finished.stderr
    return finished.stderr
