"""One trace from a request to what its run asks of others, with a tracer provider that only remembers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from tests.support.workshop import Workshop

from app.runs.context import Run

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


@dataclass
class Remembering(trace.TracerProvider, trace.Tracer):
    """Every span that began: its name, its own id and its parent's, all in hex."""

    spans: list[tuple[str, str, str]] = field(default_factory=list)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return self

    def start_span(self, name: str, context: Any = None, *args: Any, **kwargs: Any) -> trace.Span:
        parent = trace.get_current_span(context).get_span_context()
        made = SpanContext(parent.trace_id or next(self.ids), next(self.ids), False, TraceFlags(1))
        self.spans.append((name, trace.format_span_id(made.span_id), trace.format_span_id(parent.span_id)))
        return NonRecordingSpan(made)

    def above(self, span_id: str) -> list[str]:
        """The span's parent, the parent's parent and so on: those of the framework are between."""
        parents = {own: parent for _, own, parent in self.spans}
        line: list[str] = []
        while span_id := parents.get(span_id, ""):
            line.append(span_id)
        return line

    @contextlib.contextmanager
    def start_as_current_span(self, name: str, context: Any = None, *args: Any, **kwargs: Any) -> Iterator[trace.Span]:  # type: ignore[override]
        span = self.start_span(name, context)
        with trace.use_span(span):
            yield span


@dataclass
class Host:
    """A page that remembers the headers it was asked with."""

    url: str = ""
    got: list[Mapping[str, str]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")[1:]
        self.got.append({name.lower(): value for name, value in (line.split(": ", 1) for line in lines)})
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        await writer.drain()
        writer.close()


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    made = Host()
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        yield made


async def test_post_run_and_outbound_request_are_one_trace(
    api: httpx2.AsyncClient, workshop: Workshop, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetches(workshop)
    remembering = Remembering()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: remembering)
    run_id, trace_id = await submitted(api, host)
    await workshop.drain()
    performed = next(span for span in remembering.spans if span[0] == "perform fetch")
    requested = next(span for span in remembering.spans if span[0] == "GET")
    assert CALLER in remembering.above(performed[1])
    assert requested[2] == performed[1]
    [headers] = host.got
    assert headers["traceparent"] == f"00-{TRACE}-{requested[1]}-01"
    assert "baggage" not in headers, "what a caller carries is not meant for hosts that he names"
    assert (await workshop.get(run_id)).state == "succeeded"
    assert trace_id == TRACE


async def test_without_a_provider_other_hosts_are_told_nothing(
    api: httpx2.AsyncClient, workshop: Workshop, host: Host
) -> None:
    fetches(workshop)
    run_id, trace_id = await submitted(api, host)
    await workshop.drain()
    assert ((await workshop.get(run_id)).state, trace_id) == ("succeeded", TRACE)
    [headers] = host.got
    assert "traceparent" not in headers


def fetches(workshop: Workshop) -> None:
    @workshop.action()
    async def fetch(run: Run, url: str) -> str:
        return (await run.clients.web.fetch(url)).text


async def submitted(api: httpx2.AsyncClient, host: Host) -> tuple[str, str]:
    """A run's id and its trace's, submitted by a caller who traces."""
    answer = await api.post(
        "/runs",
        json={"action": "fetch", "params": {"url": host.url}},
        headers={"traceparent": f"00-{TRACE}-{CALLER}-01", "baggage": "user=ada"},
    )
    assert answer.status_code == 202
    return answer.json()["id"], answer.json()["trace_id"]
