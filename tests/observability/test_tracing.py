"""One trace from a request to what its run asks of others, with a tracer provider that only remembers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.support.workshop import Workshop

from app.engine.retry import Retry
from app.observability import tracing
from app.runs.context import Run

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


class Spans(InMemorySpanExporter):
    """Every span that has ended."""

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.get_finished_spans() if span.name == name]

    def above(self, span: ReadableSpan) -> list[int]:
        """The ids of its parent, the parent's parent and so on: those of the framework are between."""
        parents = {id_of(each): each.parent.span_id for each in self.get_finished_spans() if each.parent}
        line, at = list[int](), id_of(span)
        while at := parents.get(at, 0):
            line.append(at)
        return line


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """Somebody wants spans."""
    exporter, provider = Spans(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    tracing.is_on.cache_clear()
    yield exporter
    tracing.is_on.cache_clear()


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
    api: httpx2.AsyncClient, workshop: Workshop, host: Host, spans: Spans
) -> None:
    fetches(workshop)
    run_id, trace_id = await submitted(api, host)
    await workshop.drain()
    [sent], [performed], [requested] = spans.named("defer web"), spans.named("process web"), spans.named("GET")
    assert int(CALLER, 16) in spans.above(sent)
    assert spans.above(performed)[0] == id_of(sent)
    assert spans.above(requested)[0] == id_of(performed)
    [headers] = host.got
    assert headers["traceparent"] == f"00-{TRACE}-{id_of(requested):016x}-01"
    assert "baggage" not in headers, "what a caller carries is not meant for hosts that he names"
    assert (await workshop.get(run_id)).state == "succeeded"
    assert trace_id == TRACE


async def test_spans_say_what_was_sent_and_processed_in_the_words_of_the_conventions(
    api: httpx2.AsyncClient, workshop: Workshop, host: Host, spans: Spans
) -> None:
    fetches(workshop)
    run_id, _ = await submitted(api, host)
    await workshop.drain()
    job_id = await workshop.value("SELECT id FROM procrastinate_jobs")
    common = {
        "messaging.system": "procrastinate",
        "messaging.destination.name": "web",
        "messaging.message.id": str(job_id),
        "messaging.message.conversation_id": run_id,
    }
    [sent], [performed] = spans.named("defer web"), spans.named("process web")
    assert (sent.kind, performed.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert sent.attributes == common | {"messaging.operation.type": "send", "messaging.operation.name": "defer"}
    assert dict(performed.attributes or {}) == common | {
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.client.id": str((await workshop.get(run_id)).worker),
        "runledger.action": "fetch",
        "runledger.attempt": 1,
    }


async def test_a_batch_is_sent_once_and_each_of_its_runs_is_processed_there(
    api: httpx2.AsyncClient, workshop: Workshop, spans: Spans
) -> None:
    @workshop.action()
    async def nod() -> None: ...

    await api.post("/runs/batch", json={"runs": [{"action": "nod"}, {"action": "nod"}, {"action": "no such"}]})
    await workshop.drain()
    [sent] = spans.named("defer default")
    assert (sent.attributes or {})["messaging.batch.message_count"] == 2
    assert [spans.above(span)[0] for span in spans.named("process default")] == [id_of(sent)] * 2


async def test_a_retry_and_a_child_begin_traces_of_their_own_that_link_to_the_first(
    api: httpx2.AsyncClient, workshop: Workshop, spans: Spans
) -> None:
    @workshop.action(queue="children")
    async def child() -> None: ...

    @workshop.action(retry=Retry(max_attempts=2, base=0))
    async def parent(run: Run) -> None:
        await run.spawn("child")
        if run.attempt == 1:
            raise ValueError("not yet")

    await api.post("/runs", json={"action": "parent"})
    await workshop.drain_all()
    [sent] = spans.named("defer default")
    first, second = spans.named("process default")
    [fanned_out] = spans.named("process children")
    assert spans.above(first)[0] == id_of(sent)
    assert dict(first.attributes or {})["error.type"] == "ValueError"
    for apart in (second, fanned_out):
        assert apart.parent is None
        assert [link.context.span_id for link in apart.links] == [id_of(sent)]
    assert len({span.context.trace_id for span in (first, second, fanned_out) if span.context}) == 3


async def test_an_attempt_that_waits_has_not_failed(api: httpx2.AsyncClient, workshop: Workshop, spans: Spans) -> None:
    @workshop.action(queue="children")
    async def child() -> None: ...

    @workshop.action()
    async def parent(run: Run) -> None:
        await run.gather([("child", {})])

    await api.post("/runs", json={"action": "parent"})
    await workshop.drain()
    assert [span.status.status_code for span in spans.named("process default")] == [StatusCode.UNSET] * 2


async def test_probes_are_in_no_trace(api: httpx2.AsyncClient, spans: Spans) -> None:
    for probe in ("/livez", "/readyz?verbose", "/healthz", "/startupz", "/health"):
        assert (await api.get(probe)).status_code == 200
    assert spans.get_finished_spans() == ()
    await api.get("/actions")
    assert spans.named("GET /actions")


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
    @workshop.action(queue="web")
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
