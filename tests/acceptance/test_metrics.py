"""A worker tells Prometheus whom it has called."""

from __future__ import annotations

import contextlib
from pathlib import Path

import httpx2
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.eventually import eventually
from tests.support.mailbox import mailbox
from tests.support.processes import api_process, environment, free_port, running

from app.config import Settings


async def test_a_worker_tells_whom_it_has_called(settings: Settings, engine: AsyncEngine, tmp_path: Path) -> None:
    log, port = tmp_path / "log", free_port()
    async with api_process(settings, log) as (url, _), httpx2.AsyncClient(timeout=60, trust_env=False) as http:

        async def told() -> str:
            with contextlib.suppress(httpx2.TransportError):
                return (await http.get(f"http://127.0.0.1:{port}/metrics")).text
            return ""

        with mailbox() as box:
            given = environment(settings, SMTP_URL=box.url, METRICS_PORT=str(port), DATA_DIR=str(tmp_path))
            with running("-m", "app.worker_main", env=given, log=log):
                before = await eventually(told, within=60)
                mail = {"to": ["ada@example.com"], "subject": "x", "text": "y"}
                asked = {"action": "send_email", "params": mail}
                run = (await http.post(f"{url}/runs", json=asked, headers={"Prefer": "wait=30"})).json()
                assert run["state"] == "succeeded", run
                after = await told()
    assert "runledger_outbound_calls_total" not in before
    assert 'runledger_outbound_circuit{vendor="smtp"} 0.0' in after
    assert 'runledger_outbound_calls_total{outcome="succeeded",vendor="smtp"} 1.0' in after


def test_a_port_that_is_taken_is_said(settings: Settings, tmp_path: Path) -> None:
    with mailbox() as somebody:
        port = somebody.url.rpartition(":")[2]
        log = tmp_path / "log"
        with running("-m", "app.worker_main", env=environment(settings, METRICS_PORT=port), log=log) as worker:
            assert worker.wait(60) == 78
    assert f"METRICS_PORT={port} cannot be listened on" in log.read_text()
