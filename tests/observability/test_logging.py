"""Log lines never carry the arguments of a job."""

from __future__ import annotations

import json
import logging
from typing import Literal

import httpx2
import pytest
from tests.support.serving import open_api, serving
from tests.support.workshop import Workshop

from app.config import Settings
from app.observability.logging import WithoutArguments, configure_logging


@pytest.mark.parametrize(
    "message",
    [
        "Starting job echo[7](message='s3cr3t (really)')",
        "Periodic job prune_ledger[None](timestamp=1, key='s3cr3t') deferred for timestamp 1 with id 3",
        "Job text.repeat[1](text='s3cr3t\nmore') ended with status: Success, lasted 0.1 s - Result: s3cr3t",
    ],
)
def test_procrastinates_call_strings_lose_their_arguments(message: str) -> None:
    record = logging.LogRecord("procrastinate.worker", logging.INFO, "", 0, message, (), None)
    record.job = {"task_kwargs": {"key": "s3cr3t"}}
    assert WithoutArguments().filter(record)
    assert "s3cr3t" not in record.getMessage()
    assert not hasattr(record, "job")


def test_json_lines_have_the_fields_of_a_run_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        configure_logging(Settings(_env_file=None, log_format="json"))
        logging.getLogger("app.engine.worker").info("Succeeded", extra={"job_id": 7, "params": "s3cr3t"})
    finally:
        root.handlers, root.level = before
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["job_id"]) == ("Succeeded", "info", 7)
    assert "params" not in line


async def test_an_access_log_is_without_probes(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        async with open_api(workshop) as app, serving(app) as port, httpx2.AsyncClient() as client:
            # As uvicorn has its access log on, where it is not told otherwise.
            logging.getLogger("uvicorn.access").addHandler(logging.StreamHandler())
            logging.getLogger("uvicorn.access").setLevel(logging.INFO)
            configure_logging(Settings(_env_file=None, log_format="json"))
            for path in ("/livez", "/readyz?verbose", "/healthz", "/startupz", "/health", "/runs?limit=1"):
                assert (await client.get(f"http://127.0.0.1:{port}{path}")).status_code == 200
    finally:
        root.handlers, root.level = before
    [told] = [line for line in capsys.readouterr().err.splitlines() if '"uvicorn.access"' in line]
    assert "/runs?limit=1" in told


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_does_not_show_local_variables(
    capsys: pytest.CaptureFixture[str], log_format: Literal["json", "console"]
) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        configure_logging(Settings(_env_file=None, log_format=log_format))
        token = "s3cr3t".upper()
        try:
            raise ValueError(len(token))
        except ValueError:
            logging.getLogger("app").exception("It broke")
    finally:
        root.handlers, root.level = before
    printed = capsys.readouterr().err
    assert "ValueError" in printed
    assert "S3CR3T" not in printed
