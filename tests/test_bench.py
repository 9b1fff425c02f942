"""What is measured still works: a benchmark that nobody runs every day breaks unseen."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import URL
from tests.support.eventually import eventually
from tests.support.processes import free_port, running

from app.config import ROOT


@pytest.mark.parametrize(
    ("arguments", "figures"),
    [
        ("drain 30 10 runs", {"rate"}),
        ("drain 30 10 jobs", {"rate"}),
        ("drain 30 10 first", {"rate"}),
        ("latency 10", {"p50", "p99"}),
    ],
)
def test_our_contender_measures(database: URL, arguments: str, figures: set[str]) -> None:
    measured = subprocess.run(
        [sys.executable, "contenders/runledger.py", database.render_as_string(hide_password=False), *arguments.split()],
        cwd=ROOT / "bench",
        env={**os.environ, "PYTHONPATH": str(ROOT / "api")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = json.loads(measured.stdout.splitlines()[-1])
    assert set(found) == figures
    assert all(value > 0 for value in found.values())


@pytest.mark.parametrize("contender", ["undurable.py", "plain_api.py nothing", "plain_api.py insert"])
async def test_an_api_that_ours_is_measured_beside_answers_as_ours(
    database: URL, tmp_path: Path, contender: str
) -> None:
    port = free_port()
    name, *arguments = contender.split()
    command = (str(ROOT / "bench/contenders" / name), database.render_as_string(hide_password=False), str(port))
    with running(*command, *arguments, env=dict(os.environ), log=tmp_path / "log"):
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as api:
            await eventually(lambda: answers(api))
            answer = await api.post("/runs", json={"action": "echo", "params": {"message": "a"}})
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")


async def answers(api: httpx2.AsyncClient) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return (await api.get("/livez")).is_success
    return False
