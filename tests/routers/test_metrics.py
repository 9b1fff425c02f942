"""The API tells Prometheus what it has counted."""

from __future__ import annotations

import httpx2
import pytest

from app.errors import Unavailable
from app.outbound.neighbour import FAILURES, Neighbour
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
