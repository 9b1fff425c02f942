"""Webhooks, on real processes and real sockets, over HTTP only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
from tests.support.eventually import eventually
from tests.support.processes import api_process, worker_process
from tests.support.receiver import receiver

from app.config import Settings
from runledger_client import Client


async def test_an_end_is_told_logged_and_told_again_when_asked(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with (
        receiver(200) as there,
        api_process(settings, log) as (url, _),
        httpx2.AsyncClient(base_url=url, timeout=30) as http,
        Client(url) as client,
    ):
        endpoint = (await http.post("/webhooks", json={"url": there.url, "event_types": []})).json()
        deliveries = f"/webhooks/{endpoint['id']}/deliveries"

        async def delivered() -> dict[str, Any] | None:
            [delivery] = (await http.get(deliveries)).json()["items"]
            return delivery if delivery["state"] == "delivered" else None

        with worker_process(settings, log):
            await client.submit("echo", {"message": "in silence"})
            run = await client.submit("echo", {"message": "told"}, webhook=endpoint["id"])
            [got] = await there.gets(1)
            event = got.verified(endpoint["secret"])
            assert (event["type"], event["data"]["id"]) == ("run.succeeded", run.id)
            told = await client.get(event["data"]["links"]["self"].rpartition("/")[2])
            assert told.result == {"message": "told"}

            delivery = await eventually(delivered)
            again = await http.post(f"{deliveries}/{delivery['id']}/redeliver")
            assert (again.status_code, again.json()["id"], again.json()["delivered_at"]) == (202, delivery["id"], None)
            first, second = await there.gets(2)
            assert (first.id, first.body) == (second.id, second.body)
            assert len((await eventually(delivered))["attempts"]) == 2
