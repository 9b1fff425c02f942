"""What a command does not need is not imported: the command line answers at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.support.processes import free_port

HEAVY = ["sqlalchemy", "asyncpg", "alembic", "procrastinate", "fastapi", "uvicorn", "httpx2", "app.tasks"]
RECORD = """
import json, runpy, sys
sys.argv = ["runledger", *{arguments}]
try:
    runpy.run_module("app.cli", run_name="__main__")
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["new-action", "--help"], ["runs", "list", "--limit", "none"]]
)
def test_help_and_usage_import_nothing_heavy(arguments: list[str]) -> None:
    assert imported(arguments).isdisjoint(HEAVY)


def test_submitting_imports_neither_the_app_nor_its_engine() -> None:
    arguments = ["run", "echo", "-i", "message=hi"]
    assert imported(arguments).isdisjoint(
        {"app.tasks", "app.runs", "app.engine", "procrastinate", "fastapi", "alembic"}
    )


def test_the_api_and_a_worker_start_without_what_single_actions_need() -> None:
    loads = "import json, sys, app.main, app.worker_main; print(json.dumps(sorted(sys.modules)))"
    started = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True)
    needed_later = {"trafilatura", "spacy", "simplemma", "anthropic", "google.genai", "gspread", "wordllama", "pypdf"}
    assert needed_later.isdisjoint(json.loads(started.stdout))


def imported(arguments: list[str]) -> set[str]:
    finished = subprocess.run(
        [sys.executable, "-c", RECORD.format(arguments=arguments)],
        env={"RUNLEDGER_URL": f"http://127.0.0.1:{free_port()}"},
        capture_output=True,
        text=True,
    )
    return set(json.loads(finished.stderr.splitlines()[-1]))
