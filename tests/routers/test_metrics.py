"""The API tells Prometheus what it has counted."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from app.errors import Unavailable
from app.outbound.neighbour import FAILURES, Neighbour
from app.outbound.pace import Pace
from app.outbound.web.hosts import Hosts


async def lines(api: httpx2.AsyncClient) -> list[str]:
    answer = await api.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return answer.text.splitlines()


async def test_requests_are_counted_from_the_first_question_on(api: httpx2.AsyncClient) -> None:
    assert any(line.startswith("process_cpu_seconds_total ") for line in await lines(api))
    await api.get("/livez")
    counts = [line for line in await lines(api) if line.startswith("http_server_request_duration_seconds_count")]
    assert any('http_route="/livez"' in line for line in counts)


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
