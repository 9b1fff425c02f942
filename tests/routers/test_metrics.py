"""The API tells Prometheus what it has counted."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from tests.support.workshop import Workshop

from app.engine.retry import Retry
from app.errors import RateLimited, Unavailable
from app.outbound.neighbour import FAILURES, Neighbour
from app.outbound.pace import Pace
from app.outbound.web.hosts import Hosts


async def lines(api: httpx2.AsyncClient) -> list[str]:
    answer = await api.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return answer.text.splitlines()


async def counted_routes(api: httpx2.AsyncClient) -> set[str]:
    """The routes that have been asked since somebody asked for metrics."""
    counts = [line for line in await lines(api) if line.startswith("http_server_request_duration_seconds_count")]
    return {line.partition('http_route="')[2].partition('"')[0] for line in counts}


async def test_requests_are_counted_from_the_first_question_on(api: httpx2.AsyncClient) -> None:
    assert any(line.startswith("process_cpu_seconds_total ") for line in await lines(api))
    await api.get("/actions")
    assert "/actions" in await counted_routes(api)


async def test_probes_are_not_counted(api: httpx2.AsyncClient) -> None:
    await lines(api)
    for probe in ("/livez", "/readyz", "/readyz?verbose", "/healthz", "/startupz", "/health"):
        assert (await api.get(probe)).status_code == 200
    await api.get("/actions")
    routes = await counted_routes(api)
    assert "/actions" in routes
    assert routes.isdisjoint({"/livez", "/readyz", "/healthz", "/startupz", "/health"})


async def test_a_service_that_fails_is_seen_by_its_name(api: httpx2.AsyncClient) -> None:
    await lines(api)
    # Names of their own: what another test has called counts in this process, too.
    oracle, sibyl = Neighbour("delphi"), Neighbour("cumae")
    async with sibyl.call():
        pass
    for _ in range(FAILURES + 1):
        with pytest.raises(Unavailable):
            async with oracle.call():
                raise Unavailable("it is down")
    assert {
        'runledger_outbound_circuit{vendor="delphi"} 2.0',
        'runledger_outbound_circuit{vendor="cumae"} 0.0',
        'runledger_outbound_calls_total{outcome="succeeded",vendor="cumae"} 1.0',
        f'runledger_outbound_calls_total{{outcome="unavailable",vendor="delphi"}} {FAILURES}.0',
        'runledger_outbound_calls_total{outcome="not_called",vendor="delphi"} 1.0',
    } <= set(await lines(api))


async def test_hosts_are_counted_and_not_named(api: httpx2.AsyncClient) -> None:
    hosts = Hosts()
    for host in ("a.example", "b.example"):
        for _ in range(FAILURES):
            with pytest.raises(Unavailable), hosts.asking(host):
                raise Unavailable("it is down")
    told = await lines(api)
    assert "runledger_outbound_hosts_left_alone 2.0" in told
    assert not any("example" in line for line in told)


async def test_a_service_that_is_asked_for_more_than_it_wishes_is_seen_by_who_waits(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lines(api)
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def wait(_: float) -> None:
        has_begun.set()
        await may_end.wait()

    monkeypatch.setattr("app.outbound.pace.asyncio.sleep", wait)
    oracle = Neighbour("dodona", per_minute=15)

    async def ask() -> None:
        async with oracle.call():
            pass

    await ask()
    second = asyncio.create_task(ask())
    await has_begun.wait()
    assert 'runledger_outbound_calls_waiting{vendor="dodona"} 1.0' in await lines(api)
    may_end.set()
    await second
    assert {
        'runledger_outbound_calls_waiting{vendor="dodona"} 0.0',
        'runledger_outbound_wait_seconds_bucket{le="0.0",vendor="dodona"} 1.0',
        'runledger_outbound_wait_seconds_bucket{le="2.0",vendor="dodona"} 1.0',
        'runledger_outbound_wait_seconds_bucket{le="5.0",vendor="dodona"} 2.0',
    } <= set(await lines(api))


async def test_sites_that_are_waited_for_are_counted_together(api: httpx2.AsyncClient) -> None:
    await lines(api)
    pace = Pace("a web of its own")
    waiting: list[asyncio.Task[None]] = []
    for site in ("a.example", "b.example"):
        await pace.turn(site, 3600)
        waiting.append(asyncio.create_task(pace.turn(site, 3600)))
    await asyncio.sleep(0)
    told = await lines(api)
    assert 'runledger_outbound_calls_waiting{vendor="a web of its own"} 2.0' in told
    assert not any("example" in line for line in told)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert 'runledger_outbound_calls_waiting{vendor="a web of its own"} 0.0' in await lines(api)


async def test_what_was_accepted_and_how_attempts_ended_is_counted(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await lines(api)

    # A name of its own: what another test has submitted counts in this process, too.
    @workshop.action("juggle", retry=Retry(max_attempts=2, base=0))
    async def juggle(balls: int) -> None:
        if balls > 3:
            raise ValueError("too many")
        if balls == 3 and await workshop.value("SELECT sum(snoozes) FROM action_runs") == 0:
            raise RateLimited("a hand is busy", retry_after=0)

    for key in ("once", "once", "twice"):
        await api.post("/runs", json={"action": "juggle", "params": {"balls": 1}}, headers={"idempotency-key": key})
    await api.post("/runs", json={"action": "juggle", "params": {"balls": "many"}})
    await api.post("/runs/batch", json={"runs": [{"action": "juggle", "params": {"balls": n}} for n in (3, 4, "many")]})
    await workshop.drain_all()
    told = [line for line in await lines(api) if 'runledger_action="juggle"' in line]
    assert value(told, "messaging_client_sent_messages_total", "defer") == 4
    counted = {outcome: value(told, "messaging_process_duration_seconds_count", outcome) for outcome in OUTCOMES}
    assert counted == {"succeeded": 3, "snoozed": 1, "retried": 1, "failed": 1}
    assert value(told, "messaging_process_duration_seconds_bucket", 'outcome="succeeded"', 'le="600.0"') == 3


OUTCOMES = ("succeeded", "snoozed", "retried", "failed")


def value(told: list[str], name: str, *labels: str) -> float:
    """Of the one series of that name that has these in its labels."""
    [line] = [line for line in told if line.startswith(f"{name}{{") and all(label in line for label in labels)]
    return float(line.rpartition(" ")[2])


async def test_what_waits_runs_and_has_failed_is_told(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    @workshop.action(queue="long")
    async def hold() -> None:
        started.set()
        await release.wait()

    @workshop.action(queue="other", retry=Retry(max_attempts=1))
    async def fail() -> None:
        raise ValueError("no")

    await workshop.submit("fail")
    await workshop.drain()
    for _ in range(3):
        await api.post("/runs", json={"action": "hold", "lock": "one at a time"})
    await api.post("/runs", json={"action": "fail", "schedule_at": "2999-01-01T00:00:00Z"})
    async with workshop.working():
        await started.wait()
        await workshop.execute("UPDATE action_runs SET created_at = now() - interval '5 min' WHERE state = 'queued'")
        told = [line for line in await lines(api) if line.startswith("runledger_")]
        release.set()
    assert {
        'runledger_queue_depth{queue="long",state="queued"} 2.0',
        'runledger_queue_depth{queue="long",state="running"} 1.0',
        'runledger_queue_depth{queue="other",state="scheduled"} 1.0',
        'runledger_queue_oldest_age_seconds{queue="other"} 0.0',
        'runledger_workers_slots{state="busy"} 1.0',
        "runledger_dead_letters 1.0",
    } <= set(told)
    [age] = [line for line in told if line.startswith('runledger_queue_oldest_age_seconds{queue="long"}')]
    assert float(age.split()[1]) == pytest.approx(300, abs=60)
    assert any(line.startswith('runledger_workers_slots{state="free"}') for line in told)


async def test_a_run_that_was_scheduled_long_ago_has_waited_since_its_time(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    @workshop.action()
    async def later() -> None: ...

    await workshop.submit("later")
    await workshop.execute("UPDATE action_runs SET created_at = now() - interval '1 year'")
    await workshop.execute("UPDATE procrastinate_jobs SET scheduled_at = now() - interval '10 s'")
    [age] = [line for line in await lines(api) if line.startswith("runledger_queue_oldest_age_seconds")]
    assert float(age.split()[1]) == pytest.approx(10, abs=8)


async def test_only_the_fullest_queues_are_told_by_name(
    api: httpx2.AsyncClient, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.control.gauges.MOST_QUEUES", 1)

    @workshop.action()
    async def wait() -> None: ...

    for queue in ("a", "b", "b"):
        await api.post("/runs", json={"action": "wait", "queue": queue})
    told = [line for line in await lines(api) if line.startswith("runledger_queue_depth")]
    assert told == ['runledger_queue_depth{queue="b",state="queued"} 2.0']


async def test_without_a_database_there_are_the_other_metrics(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await workshop.execute("ALTER TABLE procrastinate_jobs RENAME TO away")
    told = await lines(api)
    assert any(line.startswith("process_cpu_seconds_total ") for line in told)
    assert not any(line.startswith("runledger_queue") for line in told)
