"""A server whose NOTIFY queue is full: whatever announces something cannot be committed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import httpx2
from tests.faults.cluster import Cluster
from tests.faults.trial import Trial, patiently
from tests.support.serving import open_api

STORED = """
SELECT (SELECT count(*) FROM action_runs) + (SELECT count(*) FROM procrastinate_jobs)
     + (SELECT count(*) FROM run_events)
"""


@contextlib.asynccontextmanager
async def api_of(trial: Trial) -> AsyncIterator[httpx2.AsyncClient]:
    workshop = trial.workshop
    async with open_api(workshop) as app:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as api:
            yield api


async def test_while_the_notify_queue_is_full_a_submission_is_told_to_come_again(
    cluster_trial: Trial, cluster: Cluster
) -> None:
    worker = await cluster_trial.worker()
    async with api_of(cluster_trial) as api:

        async def submit() -> httpx2.Response:
            return await api.post("/runs", json={"action": "instant", "params": {}})

        async with cluster.full_notify_queue(str(cluster_trial.workshop.engine.url.database)):
            refused = await submit()
            assert (refused.status_code, refused.json()["type"]) == (503, "/problems/database-unavailable")
            assert int(refused.headers["Retry-After"]) > 0
            assert await cluster_trial.workshop.value(STORED) == 0
            await cluster_trial.said("of the NOTIFY queue is taken")

        async def accepted() -> str | None:
            answer = await submit()
            return answer.json()["id"] if answer.status_code == 202 else None

        # The server leaves a full queue full until somebody asks how full it is.
        run_id = await patiently(accepted)
        assert run_id
        cluster_trial.accepted.add(run_id)
    await cluster_trial.all_ended()
    assert worker.poll() is None
