"""One trace from the request that asks for a run to the requests that the run makes.

Spans go to whoever has set a tracer provider, such as `opentelemetry-instrument`. Without one, nothing is made or sent.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.errors import RunWaits
from app.observability.messaging import SYSTEM

_NAME = "runledger"


def carried_trace(headers: Mapping[str, str]) -> dict[str, str] | None:
    """The W3C trace context to store with a run: the current span's, or else what the caller sent."""
    carrier: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(carrier)
    elif any(field in headers for field in _fields()):
        propagate.inject(carrier, propagate.extract(headers))
    return carrier or None


@functools.cache
def is_on() -> bool:
    """Whether anybody wants spans. It is asked once: who does has set a tracer provider before."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


class Sent:
    """A span around storing runs, if anybody wants spans."""

    def __init__(self, span: trace.Span | None = None) -> None:
        self._span = span

    def carried(self, otherwise: dict[str, str] | None) -> dict[str, str] | None:
        """The trace context to store with the runs."""
        carrier: dict[str, str] = {}
        if self._span is not None:
            propagate.inject(carrier)
        return carrier or otherwise

    def name(self, run_id: str, job_id: int) -> None:
        """Say which run it is."""
        if self._span is not None:
            self._span.set_attributes(_names(run_id, job_id))


@contextlib.contextmanager
def sending(queue: str | None, count: int = 1) -> Generator[Sent]:
    """Around the storing of runs, of one queue or of several: a span, to which their attempts will refer."""
    if not is_on():
        yield Sent()
        return
    attributes = _operation("send", "defer", queue)
    if count != 1:
        attributes["messaging.batch.message_count"] = count
    with _span(_titled("defer", queue), SpanKind.PRODUCER, attributes) as span:
        yield Sent(span)


@dataclass(frozen=True)
class Attempt:
    """What a span tells of one attempt of a run."""

    action: str
    run_id: str
    job_id: int
    number: int
    queue: str
    worker_id: int
    is_child: bool
    """Whether another run has spawned it."""


@contextlib.contextmanager
def performing(attempt: Attempt, carried: Mapping[str, str] | None) -> Generator[None]:
    """Around one attempt of a run: a span.

    The first is in the trace that the run carries. Those that follow, and children, begin traces of their own that
    link there: else a trace would go on for as long as the last retry is away.
    """
    attributes = (
        _operation("process", "process", attempt.queue)
        | _names(attempt.run_id, attempt.job_id)
        | {
            "messaging.client.id": str(attempt.worker_id),
            "runledger.action": attempt.action,
            "runledger.attempt": attempt.number,
        }
    )
    sent = propagate.extract(carried or {})
    name, is_apart = _titled("process", attempt.queue), attempt.number > 1 or attempt.is_child
    links = [trace.Link(trace.get_current_span(sent).get_span_context())] if is_apart and carried else []
    with _span(name, SpanKind.CONSUMER, attributes, Context() if is_apart else sent, links):
        yield


@contextlib.contextmanager
def requesting(method: str, host: str) -> Generator[dict[str, str]]:
    """Around one request to another host: a span, and the headers that tell the host of it."""
    headers: dict[str, str] = {}
    if not is_on():
        yield headers
        return
    attributes = {"http.request.method": method, "server.address": host}
    with _span(method, SpanKind.CLIENT, attributes):
        # Only this: what else the caller's context carries is not meant for hosts that he names.
        TraceContextTextMapPropagator().inject(headers)
        yield headers


@contextlib.contextmanager
def _span(
    name: str,
    kind: SpanKind,
    attributes: Mapping[str, str | int],
    context: Context | None = None,
    links: Sequence[trace.Link] = (),
) -> Generator[trace.Span]:
    """A span that tells of an error its class, and not its words: they may repeat what callers have sent."""
    with trace.get_tracer(_NAME).start_as_current_span(
        name, context, kind, attributes, links, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except RunWaits:
            # No error: it goes on when what it waits for has come.
            raise
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


@functools.cache
def _fields() -> frozenset[str]:
    """The headers that may carry a trace."""
    return frozenset(propagate.get_global_textmap().fields)


def _operation(kind: str, name: str, queue: str | None) -> dict[str, str | int]:
    """In the words of OpenTelemetry's conventions for messaging."""
    told: dict[str, str | int] = {
        "messaging.system": SYSTEM,
        "messaging.operation.type": kind,
        "messaging.operation.name": name,
    }
    return told if queue is None else told | {"messaging.destination.name": queue}


def _names(run_id: str, job_id: int) -> dict[str, str | int]:
    return {"messaging.message.id": str(job_id), "messaging.message.conversation_id": run_id}


def _titled(operation: str, queue: str | None) -> str:
    return operation if queue is None else f"{operation} {queue}"
